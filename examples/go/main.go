// Any net/http handler, served as CGI: the request is in the environment and on stdin, the response goes to stdout.
//
// "GET /" says hello, "POST /echo" sends back what it gets, as it comes.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/cgi"
)

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "Hello World!")
	})
	mux.HandleFunc("POST /echo", echo)
	if err := cgi.Serve(mux); err != nil {
		log.Fatal(err)
	}
}

func echo(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/octet-stream")
	buffer := make([]byte, 4096)
	for {
		n, err := r.Body.Read(buffer)
		if _, failed := w.Write(buffer[:n]); failed != nil {
			return
		}
		// What has been written waits for a full buffer otherwise.
		w.(http.Flusher).Flush()
		if err == io.EOF {
			return
		}
		if err != nil {
			log.Fatal(err)
		}
	}
}
