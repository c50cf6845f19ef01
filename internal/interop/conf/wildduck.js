// Runs inside the sandbox: the POP3 server of WildDuck, with a folder of files for each user.
'use strict';
const fs = require('fs');
const path = require('path');
const lib = '/usr/lib/wildduck/node_modules/';
const POP3Server = require(lib + 'wildduck/lib/pop3/server');
const passwords = JSON.parse(fs.readFileSync('/srv/conf/passwords.json'));
const folder = user => '/srv/mail/' + user + '/Maildir/new';
const quiet = { info() {}, debug() {}, error: console.error };

function options(secure) {
    return {
        secure,
        SNICallback: (name, done) => done(null, null),
        ignoreSTARTTLS: true,
        id: { name: 'WildDuck POP3 Server', version: '{{.Version}}' },
        key: fs.readFileSync('/srv/tls/server.key'),
        cert: fs.readFileSync('/srv/tls/server.crt'),
        socketTimeout: {{.Idle}} * 1000,
        logger: quiet,
        onAuth(auth, session, done) {
            const right = passwords[auth.username] === auth.password;
            done(null, right ? { user: { id: auth.username, username: auth.username } } : null);
        },
        onListMessages(session, done) {
            const messages = fs.readdirSync(folder(session.user.username)).sort().map(name => ({
                id: name.replace(/\W/g, '').toLowerCase(),
                name,
                size: read(session, name).length
            }));
            done(null, { messages, count: messages.length, size: messages.reduce((sum, m) => sum + m.size, 0) });
        },
        onFetchMessage(message, session, done) {
            let content;
            try {
                content = read(session, message.name);
            } catch (err) {
                return done(err);
            }
            done(null, require('stream').Readable.from([content], { objectMode: false }));
        },
        onUpdate(update, session, done) {
            update.deleted.forEach(m => fs.unlinkSync(path.join(folder(session.user.username), m.name)));
            setImmediate(done);
        }
    };
}

// read returns a message with CRLF line ends.
function read(session, name) {
    const stored = fs.readFileSync(path.join(folder(session.user.username), name), 'latin1');
    return Buffer.from(stored.replace(/\r?\n/g, '\r\n'), 'latin1');
}

[[false, {{.Port}}], [true, {{.TLSPort}}]].forEach(([secure, port]) => {
    const server = new POP3Server(options(secure));
    server.loggelf = () => {};
    server.on('error', console.error);
    server.server.listen(port, '127.0.0.1');
});
