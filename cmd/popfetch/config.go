package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"
)

// A config is the configuration file.
type config struct {
	State    path `toml:"state"`
	Parallel int  `toml:"parallel"`
	accounts []settings
}

// settings has a field for each key of an account. README.md explains the keys.
type settings struct {
	Name string `toml:"name"`
	ID   string `toml:"id"`

	Server            string      `toml:"server"`
	TLS               string      `toml:"tls" oneof:"implicit starttls none"`
	TLSMin            string      `toml:"tls_min" oneof:"1.0 1.1 1.2 1.3"`
	CAFile            path        `toml:"ca_file"`
	Fingerprint       fingerprint `toml:"fingerprint"`
	CertificateName   string      `toml:"certificate_name"`
	ClientCertificate path        `toml:"client_certificate"`
	ClientKey         path        `toml:"client_key"`
	Proxy             proxyURL    `toml:"proxy"`

	User            string `toml:"user"`
	Password        string `toml:"password"`
	PasswordEnv     string `toml:"password_env"`
	PasswordCommand list   `toml:"password_command"`
	PasswordKeyring string `toml:"password_keyring"`
	PasswordPrompt  bool   `toml:"password_prompt"`
	PasswordTimeout span   `toml:"password_timeout"`
	Mechanisms      list   `toml:"mechanisms"`
	InsecureAuth    bool   `toml:"insecure_auth"`

	Maildir        path        `toml:"maildir"`
	Mbox           path        `toml:"mbox"`
	Eml            path        `toml:"eml"`
	Command        list        `toml:"command"`
	ShellCommand   script      `toml:"shell_command"`
	CommandTimeout span        `toml:"command_timeout"`
	LMTP           lmtpAddress `toml:"lmtp"`
	Recipient      string      `toml:"recipient"`
	LineEnds       string      `toml:"line_ends" oneof:"lf crlf"`

	Delete      deletePolicy `toml:"delete"`
	CommitEvery int          `toml:"commit_every"`
	AcceptShort bool         `toml:"accept_short"`

	Filters     filters `toml:"filter"`
	MaxSize     amount  `toml:"max_size"`
	MaxMessages int     `toml:"max_messages"`
	MaxOctets   amount  `toml:"max_octets"`
	NewestFirst bool    `toml:"newest_first"`

	Interval          span   `toml:"interval"`
	Timeout           span   `toml:"timeout"`
	RunTimeout        span   `toml:"run_timeout"`
	Pipelining        string `toml:"pipelining" oneof:"auto never always"`
	NoCapa            bool   `toml:"no_capa"`
	NoInitialResponse bool   `toml:"no_initial_response"`

	AfterNew       list `toml:"after_new"`
	OnFailure      list `toml:"on_failure"`
	OnFailureAfter int  `toml:"on_failure_after"`

	merged table // the keys of the account and of [defaults]
	own    table // the keys of the account only
}

// An account must have exactly one key of each of these lists.
var (
	passwordKeys = []string{"password", "password_env", "password_command", "password_keyring", "password_prompt"}
	sinkKeys     = []string{"maildir", "mbox", "eml", "command", "shell_command", "lmtp"}
)

// A table is a table of the configuration. Messages about mistakes use path and title to name the table.
type table struct {
	values map[string]any
	path   string // such as "account[1]"
	title  string // such as `account "work": `
}

// present returns the elements of keys that are set in the table.
func (t table) present(keys []string) []string {
	return slices.DeleteFunc(slices.Clone(keys), func(key string) bool { _, ok := t.values[key]; return !ok })
}

// A reader reads a configuration and collects the mistakes in it.
type reader struct {
	lines    map[string]int // line of each path, such as "account[1].server"
	mistakes []mistake
}

// A mistake is something in the configuration that the user must change.
type mistake struct {
	line int // 0 if the mistake belongs to no line
	text string
}

// mistake adds a mistake about a key of a table. If key is "", the mistake is about the whole table.
func (r *reader) mistake(t table, key, format string, args ...any) {
	line := cmp.Or(r.lines[join(t.path, key)], r.lines[t.path])
	r.mistakes = append(r.mistakes, mistake{line, t.title + fmt.Sprintf(format, args...)})
}

// err returns an error with a line for each mistake, in the order of the file.
func (r *reader) err(file string) error {
	slices.SortStableFunc(r.mistakes, func(a, b mistake) int { return cmp.Compare(a.line, b.line) })
	var all []error
	for _, m := range r.mistakes {
		place := file + ": "
		if m.line > 0 {
			place += fmt.Sprintf("line %d: ", m.line)
		}
		all = append(all, errors.New(place+m.text))
	}
	return errors.Join(all...)
}

// readConfig reads and checks a configuration file. The error has a line for each mistake.
func readConfig(file string) (*config, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("there is no configuration at %s; popfetch --help shows one to begin with", file)
	}
	if err != nil {
		return nil, err
	}
	text = []byte(strings.TrimPrefix(string(text), "\ufeff"))
	var top map[string]any
	if err := toml.Unmarshal(text, &top); err != nil {
		return nil, fmt.Errorf("%s: %w", file, syntaxError(err))
	}
	r := &reader{lines: linesOf(text)}
	c := r.config(top)
	c.checkMode(r, file)
	return c, r.err(file)
}

// syntaxHints explain errors of the TOML parser. A hint is for the errors whose text contains part.
var syntaxHints = []struct{ part, hint string }{
	{"already defined", ""},
	{"start of value", `text is in quotes, as in user = "me"`},
	{"strings must be quoted", `text is in quotes, as in user = "me"`},
	{"expected '='", `a key is followed by =, as in user = "me"`},
	{"expected newline", "each key has a line of its own"},
	{"new lines", "the quote after the text is missing"},
	{"unterminated", "the quote after the text is missing"},
	{"escape", `in double quotes, \ begins a code; use single quotes, as in 'C:\mail'`},
	{"U+00FF", "the file is not UTF-8; save it as UTF-8"},
	{"start of key", "a line has a key, or a table in brackets, or a comment that begins with #"},
	{"array table name", "an account begins with [[account]]"},
	{"should be an array table", "an account begins with [[account]]"},
	{"array", `a list is written as in ["a", "b"]`},
}

// syntaxError adds the line and a hint to an error of the TOML parser.
func syntaxError(err error) error {
	decodeErr, ok := errors.AsType[*toml.DecodeError](err)
	if !ok {
		return err
	}
	line, _ := decodeErr.Position()
	text := strings.TrimPrefix(decodeErr.Error(), "toml: ")
	for _, h := range syntaxHints {
		if strings.Contains(text, h.part) {
			return fmt.Errorf("line %d: %s", line, strings.TrimSuffix(text+"; "+h.hint, "; "))
		}
	}
	return fmt.Errorf("line %d: %s", line, text)
}

// linesOf returns the line of each key and each table of a valid TOML document.
func linesOf(text []byte) map[string]int {
	// tables counts the tables with the same name, such as [[account]]
	lines, tables := make(map[string]int), make(map[string]int)
	var p unstable.Parser
	current := ""
	for p.Reset(text); p.NextExpression(); {
		e := p.Expression()
		place, line := "", 0
		if e.Kind == unstable.KeyValue {
			place = current
		}
		for key := e.Key(); key.Next(); {
			if n := tables[place]; n > 0 && e.Kind != unstable.KeyValue {
				place = fmt.Sprintf("%s[%d]", place, n-1)
			}
			place = join(place, string(key.Node().Data))
			line = p.Shape(key.Node().Raw).Start.Line
		}
		if e.Kind == unstable.ArrayTable {
			tables[place]++
			place = fmt.Sprintf("%s[%d]", place, tables[place]-1)
		}
		if e.Kind != unstable.KeyValue {
			current = place
		}
		lines[place] = line
	}
	return lines
}

// join returns the path of a key of a table.
func join(path, key string) string { return strings.Trim(path+"."+key, ".") }

// config reads the whole file.
func (r *reader) config(top map[string]any) *config {
	c := &config{Parallel: defaultParallel}
	topLevel := make(map[string]any)
	for key, v := range top {
		if key != "account" && key != "defaults" {
			topLevel[key] = v
		}
	}
	r.fill(c, table{values: topLevel}, "account", "defaults")
	if c.Parallel < 1 {
		r.mistake(table{}, "parallel", "parallel is at least 1")
	}
	defaults := table{values: map[string]any{}, path: "defaults", title: "defaults: "}
	if v, ok := top["defaults"]; ok {
		if defaults.values, ok = v.(map[string]any); !ok {
			r.mistake(table{}, "defaults", "defaults is a table that begins with [defaults]")
		}
	}
	r.checkDefaults(defaults)
	for i, values := range r.tables(top["account"]) {
		t := table{values: values, path: fmt.Sprintf("account[%d]", i), title: accountTitle(i, values)}
		c.accounts = append(c.accounts, r.account(t, defaults))
	}
	r.checkNames(c.accounts)
	return c
}

// tables returns the tables of the accounts.
func (r *reader) tables(v any) (tables []map[string]any) {
	elements, ok := v.([]any)
	for _, element := range elements {
		values, isTable := element.(map[string]any)
		ok = ok && isTable
		tables = append(tables, values)
	}
	if !ok {
		r.mistake(table{}, "account", "no account; an account is a table that begins with [[account]]")
		return nil
	}
	return tables
}

// accountTitle returns the beginning of an error about an account. It contains the name of the account, or its number
// if the account has no name.
func accountTitle(i int, values map[string]any) string {
	for _, key := range []string{"name", "user"} {
		if name, ok := values[key].(string); ok && name != "" {
			return fmt.Sprintf("account %q: ", name)
		}
	}
	return fmt.Sprintf("account number %d: ", i+1)
}

// checkDefaults adds the mistakes in [defaults]. It is called once, so that they are not repeated for each account.
func (r *reader) checkDefaults(defaults table) {
	if len(defaults.values) == 0 {
		return
	}
	r.fill(new(settings), defaults)
	if keys := defaults.present([]string{"name", "id", "user", "filter"}); len(keys) > 0 {
		r.mistake(defaults, keys[0], "%s can be set in an account only", keys[0])
	}
}

// account reads an account. If the account has a password key of its own, the password key in [defaults] is not used.
// If the account has a destination of its own, the destination in [defaults] is not used.
func (r *reader) account(t, defaults table) settings {
	s := settings{merged: t, own: t, Interval: span{defaultInterval}, RunTimeout: span{defaultRunTimeout},
		CommandTimeout: span{defaultCommandTimeout}, PasswordTimeout: span{defaultPasswordTimeout}}
	all := make(map[string]any)
	maps.Copy(all, defaults.values)
	maps.DeleteFunc(all, func(key string, _ any) bool {
		_, own := t.values[key]
		return own || slices.Contains(passwordKeys, key) && len(t.present(passwordKeys)) > 0 ||
			slices.Contains(sinkKeys, key) && len(t.present(sinkKeys)) > 0
	})
	new(reader).fill(&s, table{values: all}) // errors are ignored, because checkDefaults has already reported them
	r.fill(&s, t)
	maps.Copy(all, t.values)
	s.merged.values = all
	r.check(&s)
	return s
}

// fill sets the fields of the struct that dst points to. The tag of a field contains its key. A key that is neither in
// a tag nor in otherKeys is a mistake.
func (r *reader) fill(dst any, t table, otherKeys ...string) {
	fields := reflect.ValueOf(dst).Elem()
	known := otherKeys
	for i := range fields.NumField() {
		tag := fields.Type().Field(i).Tag
		key, isKey := tag.Lookup("toml")
		v, isSet := t.values[key]
		if isKey {
			known = append(known, key)
		}
		if !isKey || !isSet {
			continue
		}
		field := fields.Field(i).Addr().Interface()
		if f, ok := field.(*filters); ok {
			f.fill(r, t, v)
		} else if err := assign(field, v, strings.Fields(tag.Get("oneof"))); err != nil {
			r.mistake(t, key, "%s is %v", key, err)
		}
	}
	for key := range t.values {
		if !slices.Contains(known, key) {
			r.mistake(t, key, "unknown key %s%s", key, keyHint(key, known))
		}
	}
}

// foreignKeys maps keys of other programs to the key of popfetch to use instead.
var foreignKeys = map[string]string{
	"host": "server", "hostname": "server", "port": `server, as in server = "pop.example.org:995"`,
	"username": "user", "login": "user", "pass": "password", "passwordeval": "password_command", "ssl": "tls",
	"tlsstarttls": "tls", "tlstrustfile": "ca_file", "tlsfingerprint": "fingerprint", "sslfingerprint": "fingerprint",
	"keep": "delete", "delivery": "maildir, mbox or command", "mda": "command", "path": "maildir or mbox",
	"poll": "interval", "daemon": "interval", "killsize": "max_size", "maxmessagesize": "max_size",
	"deleteafter": `delete, as in delete = "14 days"`, "socksproxy": "proxy", "auth": "mechanisms",
	"type": "maildir, mbox or command", "accounts": "[[account]]", "default": "[defaults]",
}

// keyHint returns a hint with the key that the user may have meant. It returns "" if no key is similar.
func keyHint(key string, known []string) string {
	plain := strings.NewReplacer("_", "", "-", "").Replace(strings.ToLower(key))
	if near := cmp.Or(foreignKeys[plain], nearest(key, known)); near != "" {
		return "; did you mean " + near + "?"
	}
	return ""
}
