// One static program for pods that stand for something larger:
//
//	probe wait            run until SIGTERM
//	probe say TEXT        print TEXT, with $VARIABLES of the environment in it
//	probe serve TEXT      answer every HTTP request on port 8080 with TEXT
//	probe get URL         print what an HTTP server answers
//	probe resolve NAME    print the addresses of a name
//	probe exit CODE       end with that code
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	log.SetFlags(0)
	command, argument := "", ""
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	if len(os.Args) > 2 {
		argument = os.Args[2]
	}
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	switch command {
	case "wait":
		<-terminated
	case "say":
		fmt.Println(os.ExpandEnv(argument))
	case "serve":
		answer := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, argument) }
		go func() { log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(answer))) }()
		<-terminated
	case "get":
		client := http.Client{Timeout: 5 * time.Second}
		answer, err := client.Get(argument)
		check(err)
		_, err = io.Copy(os.Stdout, answer.Body)
		check(err)
	case "resolve":
		addresses, err := net.LookupHost(argument)
		check(err)
		fmt.Println(strings.Join(addresses, " "))
	case "exit":
		code, err := strconv.Atoi(argument)
		check(err)
		os.Exit(code)
	default:
		log.Fatalf("probe: no command %q", command)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
