module github.com/seed-2d50cddb/pop3/benchmarks/fleet

go 1.26.0

require github.com/seed-2d50cddb/pop3/examples/fleet v0.1.0
