package main

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed-2d50cddb/pop3/examples/fleet/accounts"
	"github.com/seed-2d50cddb/pop3/examples/fleet/lab"
)

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	return string(text)
}

// model is what kong knows of the commands.
func model(t *testing.T) *kong.Application {
	t.Helper()
	return kong.Must(new(commands), kong.DefaultEnvars("FLEET"), kong.Vars{"name": ""}).Model
}

// Every variable in the files for deployment belongs to a flag.
func TestDeployedVariablesAreFlags(t *testing.T) {
	variables := make(map[string]bool)
	for _, command := range model(t).Children {
		for _, flag := range append(command.Flags, command.Parent.Flags...) {
			for _, name := range flag.Envs {
				variables[name] = true
			}
		}
	}
	found := 0
	for _, file := range []string{"deploy/compose.yaml", "deploy/kubernetes/fleet.yaml", "README.md", "OPERATIONS.md"} {
		for _, name := range regexp.MustCompile(`\bFLEET_\w+`).FindAllString(readFile(t, file), -1) {
			if name == "FLEET_PICTURES" { // only a test uses it
				continue
			}
			found++
			assert.True(t, variables[name], "%s in %s", name, file)
		}
	}
	assert.Greater(t, found, 10)
}

// Every command and flag in documents, manifests and error texts exists.
func TestDocumentedFlagsExist(t *testing.T) {
	commands, flags := make(map[string]bool), map[string]bool{
		"help": true, "build": true, "from-file": true, // build is a flag of docker, and from-file one of kubectl
	}
	for _, command := range model(t).Children {
		commands[command.Name] = true
		for _, flag := range append(command.Flags, command.Parent.Flags...) {
			flags[flag.Name] = true
		}
	}
	found := 0
	for _, file := range []string{"README.md", "OPERATIONS.md", "deploy/compose.yaml", "deploy/nats.conf",
		"deploy/kubernetes/fleet.yaml", "accounts/accounts.go", "reconcile.go", "nats.go", "main.go", "admin.go"} {
		text := readFile(t, file)
		flag := regexp.MustCompile("(?:^|[\\s`,(\\[])--([a-z]+(?:-[a-z]+)*)")
		for _, m := range flag.FindAllStringSubmatch(text, -1) {
			found++
			assert.True(t, flags[m[1]], "%s in %s", m[0], file)
		}
		for _, m := range regexp.MustCompile("(?:`|    |; |run )fleet ([a-z]+)").FindAllStringSubmatch(text, -1) {
			found++
			assert.True(t, commands[m[1]], "%s in %s", m[0], file)
		}
	}
	assert.Greater(t, found, 40)
}

// Every alert has a section in OPERATIONS.md, and every section there belongs to an alert.
func TestAlertsAreExplained(t *testing.T) {
	var alerts, sections []string
	for _, m := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(readFile(t, "deploy/rules.yml"), -1) {
		alerts = append(alerts, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^### (\w+)`).FindAllStringSubmatch(readFile(t, "OPERATIONS.md"), -1) {
		sections = append(sections, m[1])
	}
	assert.Equal(t, alerts, sections)
}

// Every metric in the alerts and the dashboard exists. No metric has a label that a server or an account can choose.
func TestMetricsExist(t *testing.T) {
	t.Parallel()
	r := newRig(t, lab.Size{Boxes: 3, Servers: 1, Messages: 1, Bytes: 300})
	r.edit(0, func(a *accounts.Account) { a.Password = "wrong" })
	s, w := r.start("scheduler", "s"), r.start("worker", "w")
	eventually(t, "all are polled", func() bool { return w.metric("fleet_polls_total") == 3 })
	eventually(t, "the view follows", func() bool { return s.metric("fleet_accounts_failing") == 1 })
	assert.EqualValues(t, 3, s.metric("fleet_accounts"))
	assert.EqualValues(t, 1, s.metric("fleet_leader"))
	assert.EqualValues(t, 1, s.metric("fleet_workers"))
	assert.EqualValues(t, 8, s.metric("fleet_worker_slots"))
	assert.EqualValues(t, 3, w.metric("fleet_lag_seconds_count"))
	_, mine := s.get("/metrics")
	_, theirs := w.get("/metrics")
	names := regexp.MustCompile(`\b(?:fleet|process)_[a-z_]+[a-z]`)
	for _, file := range []string{"deploy/rules.yml", "deploy/dashboard.json"} {
		for _, name := range names.FindAllString(readFile(t, file), -1) {
			assert.Contains(t, mine+theirs, "# TYPE "+strings.TrimSuffix(name, "_bucket")+" ", "%s in %s", name, file)
		}
	}
	for _, a := range r.lab.Accounts {
		assert.NotContains(t, mine+theirs, a.User)
	}
	_, page := s.get("/")
	assert.Contains(t, page, r.lab.Accounts[0].Name)
	assert.Contains(t, page, "invalid user name or password")
	for _, p := range []*process{s, w} {
		assert.NotContains(t, p.log.String()+page, r.lab.Accounts[1].Password)
	}
	require.NoError(t, w.Stop())
	eventually(t, "no slots are left", func() bool { return s.metric("fleet_worker_slots") == 0 })
}

// Every value of a label in the alerts and the dashboard is one that a worker uses.
func TestLabelsExist(t *testing.T) {
	given := readFile(t, "worker.go") + readFile(t, "monitor.go")
	for _, code := range knownCodes {
		given += `"` + string(code) + `"`
	}
	found := 0
	for _, file := range []string{"deploy/rules.yml", "deploy/dashboard.json"} {
		text := strings.ReplaceAll(readFile(t, file), `\"`, `"`)
		labels := regexp.MustCompile(`[{,](code|outcome|reason|status|kind)="([^"]+)"`)
		for _, m := range labels.FindAllStringSubmatch(text, -1) {
			found++
			assert.Contains(t, given, `"`+m[2]+`"`, "%s in %s", m[0], file)
		}
	}
	assert.Greater(t, found, 2)
}

func TestRulesOfPrometheus(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("NOT RUN: promtool is not installed (apt-get install prometheus)")
	}
	for _, args := range [][]string{{"check", "rules", "rules.yml"}, {"test", "rules", "rules_test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = "deploy"
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, string(out))
	}
}
