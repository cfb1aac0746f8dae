package main

import (
	"fmt"
	"os"

	"github.com/nats-io/nats.go"
)

func main() {
	nc := must(nats.Connect(os.Args[1]))
	body := must(os.ReadFile(os.Args[3])) // {"rows": [{...}, ...]}
	reply := must(nc.Request("leat.score."+os.Args[2], body, nats.DefaultTimeout))
	fmt.Println(reply.Header.Get("Leat-Error-Kind"), reply.Header.Get("Leat-Model"), reply.Header.Get("Leat-Request-Id"))
	fmt.Println(string(reply.Data))
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) // nats.ErrNoResponders: there is no such pipeline
	}
	return v
}
