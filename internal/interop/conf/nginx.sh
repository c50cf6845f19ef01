# Runs inside the sandbox. Starts Dovecot, and nginx as its proxy.
set -e
/usr/sbin/dovecot -F -c /srv/conf/dovecot.conf &
exec /usr/sbin/nginx -c /srv/conf/nginx.conf
