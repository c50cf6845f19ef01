package clients

import (
	_ "embed"
	"encoding/json"
	"os/exec"
)

//go:embed poplib_session.py
var poplibScript string

// poplib is the POP3 client in the standard library of Python. The script prints a [Result] as JSON.
var poplib = Client{Name: "Python poplib", Command: func(j Job) (*program, error) {
	job, err := json.Marshal(j)
	if err != nil {
		return nil, err
	}
	return &program{
		cmd:  exec.Command("python3", "-I", "-c", poplibScript, string(job)),
		read: func(out []byte, r *Result) error { return json.Unmarshal(out, r) },
	}, nil
}, VersionCommand: []string{"python3", "--version"}}
