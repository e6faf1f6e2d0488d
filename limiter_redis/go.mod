module github.com/gopassreset/reset/limiter_redis

go 1.25.0

require (
	github.com/gopassreset/reset v0.0.0
	github.com/redis/go-redis/v9 v9.7.3 // the oldest without CVE-2025-29923; .ci/run tests the newest, which needs Go 1.26
)

require (
	github.com/cespare/xxhash/v2 v2.2.0 // indirect
	github.com/dgryski/go-rendezvous v0.0.0-20200823014737-9f7001d12a5f // indirect
	github.com/jordan-wright/email v4.0.1-0.20210109023952-943e75fe5223+incompatible // indirect
	golang.org/x/net v0.57.0 // indirect
	golang.org/x/text v0.40.0 // indirect
	golang.org/x/time v0.11.0 // indirect
)

replace github.com/gopassreset/reset => ../
