# The few verbs that people need. Everything else is `go` itself.
COMPOSE ?= $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else echo docker-compose; fi)
SCENARIOS = ^Test(DamagedBlocks|DiskFull|Liars|OriginDiesWaiting|PublishedAnswerOwed|PublishedOriginDies|SubmitterDies|WorkerDies)$$
TESTNET  = $(COMPOSE) -p kith-testnet -f testnet/compose.yaml

.PHONY: soak survive build kubo interop test bench-locality demo ci chaos chaos-mutants generate testnet-image testnet-up testnet-down testnet-logs

build: ## the static binary, ./kith
	CGO_ENABLED=0 go build -trimpath -o kith ./cmd/kith

kubo: ## the stock Kubo that testnet/interop pins, bin/ipfs, for `kith bench blocks --kubo bin/ipfs`
	CGO_ENABLED=0 go build -C testnet/interop -o "$(CURDIR)/bin/ipfs" github.com/ipfs/kubo/cmd/ipfs

interop: ## kith and a stock Kubo, both ways
	cd testnet/interop && go test -count=1 ./...

test: ## what the README says
	go test ./...

bench-locality: ## where jobs go in a simulated mesh, against an oracle; minutes
	cd testnet/sim && KITH_BENCH=locality go test -run '^TestBenchLocality$$' -count=1 -timeout 30m

demo: ## five nodes on this machine, a real job
	go run ./cmd/kith demo

ci: ## all that guards main
	.ci/run

chaos: ## 2,000 kill -9 at every durable step and at random instants, under load (20 minutes)
	KITH_CHAOS_KILLS=2000 go test ./testnet/chaos -run TestChaos -count=1 -v -timeout 3h

chaos-mutants: ## leave out each durable step in turn: the checker must see it (half an hour)
	KITH_CHAOS_MUTANTS=all go test ./testnet/chaos -run TestMutants -count=1 -v -timeout 3h

generate: ## protobuf, assembly, example programs, docs/cli.md (needs protoc)
	go build -o bin/protoc-gen-go google.golang.org/protobuf/cmd/protoc-gen-go
	PATH="$(CURDIR)/bin:$$PATH" go generate ./...

testnet-image: ## the image of the compose testnet
	CGO_ENABLED=0 GOOS=linux go build -trimpath -o testnet/image/kith ./cmd/kith
	docker build -q -t kith-testnet:latest testnet/image

testnet-up: testnet-image ## five containers, healthy, the API on 127.0.0.1:7770
	$(TESTNET) up -d
	$(TESTNET) exec -T node1 /kith peers --wait 4 --timeout 2m

testnet-down: ## stop and remove all of it, volumes too
	$(TESTNET) down -v

testnet-logs:
	$(TESTNET) logs

soak: ## 10,000 jobs through a mesh whose databases are on disk: nothing held grows (half an hour)
	KITH_SOAK=10000 go test -count=1 -timeout 2h -v -run 'TestSoak$$' ./testnet/sim

survive: ## the scenarios of testnet: real processes die, disks fill (minutes)
	KITH_SURVIVE=1 go test -count=1 -timeout 14m -v -run '$(SCENARIOS)' ./testnet
