# Runs inside the sandbox. Writes the users into the password database, if there is none, and starts Cyrus.
set -e
if [ ! -f /srv/mail/sasldb2 ]; then
  while IFS=: read -r name password; do
    printf '%s' "$password" | saslpasswd2 -p -f /srv/mail/sasldb2 -u localhost -c "$name"
  done < /srv/conf/users
  chown cyrus:mail /srv/mail/sasldb2
fi
exec /usr/lib/cyrus/bin/master -D -C /etc/imapd.conf -M /etc/cyrus.conf
