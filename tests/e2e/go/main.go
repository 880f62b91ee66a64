// A Lambda function that burns CPU, allocates, and waits, while Pyroscope's Go SDK profiles it.
//
// It sends to localhost:4040, where the extension listens, unless FUNCTION_SDK_ADDRESS is another. What becomes a header the SDK is given of its own, so that
// the far end can tell whose arrived.
package main

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/grafana/pyroscope-go"
)

type event struct {
	Seconds float64 `json:"seconds"`
}

type answer struct {
	Burned float64 `json:"burned"`
}

var profiler *pyroscope.Profiler

func main() {
	// Every wait is in the profiles, every allocation of 4 KiB is likely to be.
	runtime.SetMutexProfileFraction(1)
	runtime.SetBlockProfileRate(1)
	runtime.MemProfileRate = 4096
	var err error
	profiler, err = pyroscope.Start(pyroscope.Config{
		ApplicationName:   os.Getenv("FUNCTION_SERVICE"),
		ServerAddress:     cmp.Or(os.Getenv("FUNCTION_SDK_ADDRESS"), "http://localhost:4040"),
		BasicAuthUser:     "of-the-sdk",
		BasicAuthPassword: "of-the-sdk",
		TenantID:          "of-the-sdk",
		HTTPHeaders:       map[string]string{"x-stage": "of-the-sdk"},
		Tags:              map[string]string{"team": "e2e"},
		Logger:            pyroscope.StandardLogger,
		ProfileTypes: []pyroscope.ProfileType{
			pyroscope.ProfileCPU,
			pyroscope.ProfileAllocObjects,
			pyroscope.ProfileAllocSpace,
			pyroscope.ProfileInuseObjects,
			pyroscope.ProfileInuseSpace,
			pyroscope.ProfileMutexCount,
			pyroscope.ProfileMutexDuration,
			pyroscope.ProfileBlockCount,
			pyroscope.ProfileBlockDuration,
		},
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lambda.Start(handle)
}

func handle(_ context.Context, event event) (answer, error) {
	defer profiler.Flush(true)
	kept = append(kept, allocateGoHeap())
	waitForGoChannel()
	unlockGoMutex()
	return answer{burnGoCPU(event.Seconds)}, nil
}

func burnGoCPU(seconds float64) float64 {
	until := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	burned := 0.0
	for time.Now().Before(until) {
		for i := range 1000 {
			burned += math.Sqrt(float64(i))
		}
	}
	return burned
}

// What is in use, and not only what was allocated.
var kept [][]byte

func allocateGoHeap() []byte {
	return make([]byte, 256*1024)
}

// What blocks is in the block profile.
func waitForGoChannel() {
	told := make(chan struct{})
	time.AfterFunc(time.Millisecond, func() { close(told) })
	<-told
}

// Who made others wait for a mutex is in the mutex profile.
func unlockGoMutex() {
	var mutex sync.Mutex
	var others sync.WaitGroup
	mutex.Lock()
	others.Go(func() {
		mutex.Lock()
		mutex.Unlock() //nolint:staticcheck // to have waited is all
	})
	time.Sleep(time.Millisecond)
	mutex.Unlock()
	others.Wait()
}
