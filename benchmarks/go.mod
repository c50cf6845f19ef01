module github.com/seed-2d50cddb/pop3/benchmarks

go 1.26.0

replace github.com/seed-2d50cddb/pop3 => ../

require github.com/stretchr/testify v1.12.1

require go.yaml.in/yaml/v3 v3.0.5 // indirect
