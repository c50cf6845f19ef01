# Inside the sandbox: Dovecot, and nginx in front of it.
set -e
/usr/sbin/dovecot -F -c /srv/conf/dovecot.conf &
exec /usr/sbin/nginx -c /srv/conf/nginx.conf
