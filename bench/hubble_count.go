// Counts the flows that a server of Hubble's API sends, as fast as Go's gRPC takes them.
//
//	hubble_count ADDRESS NUMBER     the last NUMBER flows, all fields
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

func main() {
	number, err := strconv.ParseUint(os.Args[2], 10, 64)
	check(err)
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	began := time.Now()
	flows, err := observer.NewObserverClient(connection).GetFlows(
		context.Background(), &observer.GetFlowsRequest{Number: number})
	check(err)
	count := 0
	for {
		_, err := flows.Recv()
		if err == io.EOF {
			break
		}
		check(err)
		count++
	}
	fmt.Println(count, time.Since(began).Seconds())
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
