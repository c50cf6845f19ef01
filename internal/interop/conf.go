package interop

import (
	"embed"
	"maps"
	"strings"
	"text/template"
)

//go:embed conf
var confFiles embed.FS

var confTemplates = template.Must(template.ParseFS(confFiles, "conf/*"))

// render writes the embedded configuration file with the server's ports and options, and the values in extra.
func (s *Server) render(from, to string, extra map[string]any) error {
	data := map[string]any{
		"Port": s.ports[0], "TLSPort": s.ports[1], "BehindPort": s.ports[2],
		"Store": string(s.opts.Store), "Lock": s.opts.Lock, "Idle": s.idleSeconds(), "Conf": s.opts.Conf,
	}
	maps.Copy(data, extra)
	var b strings.Builder
	if err := confTemplates.ExecuteTemplate(&b, from, data); err != nil {
		return err
	}
	return s.write(to, b.String(), os644)
}

// renderAll calls render for several files that need no extra values.
func (s *Server) renderAll(files map[string]string) error {
	for from, to := range files {
		if err := s.render(from, to, nil); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) idleSeconds() int {
	const tenMinutes = 600
	if s.opts.Idle == 0 {
		return tenMinutes
	}
	return int(s.opts.Idle.Seconds())
}

// home returns the home directory of an account inside the sandbox.
func home(name string) string { return "/srv/mail/" + name }
