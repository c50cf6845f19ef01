# Runs inside the sandbox. Writes the users into Courier's database, then starts its authentication daemon and two
# listeners.
set -e
last=
while IFS=: read -r name crypt password; do
  if [ "$password" != "$last" ]; then
    hmac=
    for h in md5 sha1 sha256; do
      hmac="$hmac|hmac-${h}pw=$(printf '%s\n%s\n' "$password" "$password" | userdbpw -hmac-$h)"
    done
    last=$password
  fi
  printf '%s\tuid=5000|gid=5000|home=/srv/mail/%s|mail=/srv/mail/%s/Maildir|systempw=%s%s\n' \
    "$name" "$name" "$name" "$crypt" "$hmac"
done < /srv/conf/users > /etc/courier/userdb
chmod 600 /etc/courier/userdb
mkdir -p /run/courier/authdaemon
chown -R courier:courier /run/courier /var/lib/courier /etc/courier
makeuserdb
set -a
. /srv/conf/courier.env
lib=/usr/lib/courier
$lib/courier-authlib/authdaemond &
while [ ! -S /run/courier/authdaemon/socket ]; do sleep 0.02; done
common="-address=127.0.0.1 -maxprocs=100 -maxperip=100 -nodnslookup -noidentlookup"
session="$lib/courier/courierpop3login $lib/courier/courierpop3d Maildir"
POP3_TLS=1 POP3_STARTTLS=NO couriertcpd $common {{.TLSPort}} $COURIERTLS -server -tcpd -user=courier $session &
exec couriertcpd $common {{.Port}} $session
