# Runs inside the sandbox. Starts a process for each connection, for a server that uses only standard input and output.
# For TLS, another socat forwards to the port in clear.
#   sh inetd.sh PORT TLSPORT COMMAND
set -e
rm -rf /var/mail
ln -s /srv/mail /var/mail # the servers are compiled with this path
common=bind=127.0.0.1,reuseaddr,fork,backlog=128
socat "OPENSSL-LISTEN:$2,$common,cert=/srv/tls/server.pem,verify=0" "TCP4:127.0.0.1:$1" &
exec socat "TCP4-LISTEN:$1,$common" "EXEC:$3,nofork"
