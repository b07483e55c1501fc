// Command registry is CNCF's distribution over a folder of its own: `registry PARENT HOST...`
//
// It listens on a free port of each host and prints the addresses. When its standard input ends, as
// it does when its parent ends in whatever way, it ends too and deletes the folder.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
)

func main() {
	// A terminal's Ctrl-C reaches the parent as well, which may still have something to push.
	signal.Ignore(os.Interrupt)
	if err := serve(os.Args[1], os.Args[2:]); err != nil {
		log.Fatal(err)
	}
}

func serve(parent string, hosts []string) error {
	folder, err := os.MkdirTemp(parent, "registry-")
	if err != nil {
		return err
	}
	defer remove(folder)
	app := handlers.NewApp(context.Background(), &configuration.Configuration{
		Storage: configuration.Storage{
			"filesystem": configuration.Parameters{"rootdirectory": folder},
		},
	})
	server := &http.Server{Handler: app}
	defer server.Close()
	for _, host := range hosts {
		listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
		if err != nil {
			return err
		}
		fmt.Println(listener.Addr())
		go server.Serve(listener)
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// remove deletes a folder into which requests may still be writing, for a moment.
func remove(folder string) {
	for range 50 {
		if os.RemoveAll(folder) == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}
