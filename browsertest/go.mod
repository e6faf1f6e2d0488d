module github.com/gopassreset/reset/browsertest

go 1.25.0

require github.com/gopassreset/reset v0.0.0

replace github.com/gopassreset/reset => ../
