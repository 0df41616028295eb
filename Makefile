# The few verbs that people need. Everything else is `go` itself.
COMPOSE ?= $(shell if docker compose version >/dev/null 2>&1; then echo docker compose; else echo docker-compose; fi)
TESTNET  = $(COMPOSE) -p kith-testnet -f testnet/compose.yaml

.PHONY: build test demo ci generate testnet-image testnet-up testnet-down testnet-logs

build: ## the static binary, ./kith
	CGO_ENABLED=0 go build -trimpath -o kith ./cmd/kith

test: ## what the README says
	go test ./...

demo: ## five nodes on this machine, a real job
	go run ./cmd/kith demo

ci: ## all that guards main
	.ci/run

generate: ## protobuf, example programs, docs/cli.md (needs protoc)
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
