# Inside the sandbox: a process a connection for a server that knows standard input and output only.
# TLS is socat in front of the port in clear.
#   sh inetd.sh PORT TLSPORT COMMAND
set -e
rm -rf /var/mail
ln -s /srv/mail /var/mail # a path that is compiled in
common=bind=127.0.0.1,reuseaddr,fork,backlog=128
socat "OPENSSL-LISTEN:$2,$common,cert=/srv/tls/server.pem,verify=0" "TCP4:127.0.0.1:$1" &
exec socat "TCP4-LISTEN:$1,$common" "EXEC:$3,nofork"
