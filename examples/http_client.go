// Predictions and jobs with net/http: Go 1.19 and later. It needs no module beside the standard library.
//
//	go run examples/http_client.go
//
// HEADRACE_API is the gateway's address, HEADRACE_API_KEY your key if it asks for one.
package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
	"strconv"
	"time"
)

var client = &http.Client{Timeout: 60 * time.Second}

type instance map[string]any

// answer holds the members of the gateway's documents that this program reads. Errors have a Detail.
type answer struct {
	ID          string `json:"id"`
	Status      any    `json:"status"` // a text of a job, a number of an error
	Predictions []any  `json:"predictions"`
	Message     string `json:"message"`
	Detail      string `json:"detail"`
	code        int
}

// send sends a request that may be repeated, and repeats it if there was no answer, or 429 or 503.
func send(method, path string, body any, headers map[string]string) (answer, error) {
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return answer{}, err
		}
	}
	for attempt := 1; ; attempt++ {
		pause := time.Duration(1<<attempt) * 100 * time.Millisecond
		response, err := sendOnce(method, path, content, headers)
		if err == nil {
			busy := response.StatusCode == http.StatusTooManyRequests || response.StatusCode == http.StatusServiceUnavailable
			if !busy || attempt == 6 {
				defer response.Body.Close()
				result := answer{code: response.StatusCode}
				if err = json.NewDecoder(response.Body).Decode(&result); err == nil && result.code >= 400 {
					err = fmt.Errorf("%s", result.Detail)
				}
				return result, err
			}
			if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil {
				pause = time.Duration(seconds) * time.Second
			}
			response.Body.Close()
		} else if attempt == 6 {
			return answer{}, err
		}
		time.Sleep(pause)
	}
}

func sendOnce(method, path string, content []byte, headers map[string]string) (*http.Response, error) {
	request, err := http.NewRequest(method, setting("HEADRACE_API", "http://127.0.0.1:8080")+path, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+setting("HEADRACE_API_KEY", "none"))
	request.Header.Set("Content-Type", "application/json")
	for name, value := range headers {
		request.Header.Set(name, value)
	}
	return client.Do(request)
}

// predict returns a prediction for each instance. The Idempotency-Key makes a repeat safe: one key is one job.
func predict(model string, instances ...instance) ([]any, error) {
	headers := map[string]string{"Idempotency-Key": randomName()}
	result, err := send("POST", "/v1/models/"+model+":predict", map[string]any{"instances": instances}, headers)
	if err == nil && result.code == http.StatusAccepted {
		return waitFor(result.ID)
	}
	return result.Predictions, err
}

// submit sends a job under an id of our own, and returns the id under which the gateway knows it.
func submit(order, model string, instances ...instance) (string, error) {
	result, err := send("PUT", "/v1/jobs/"+order, map[string]any{"model": model, "instances": instances}, nil)
	return result.ID, err
}

// waitFor returns the predictions of a job. Each request waits up to 20 seconds, so this asks seldom.
func waitFor(job string) ([]any, error) {
	for {
		result, err := send("GET", "/v1/jobs/"+job, nil, map[string]string{"Prefer": "wait=20"})
		if err != nil {
			return nil, err
		}
		switch result.Status {
		case "success":
			return result.Predictions, nil
		case "queued", "running":
		default:
			return nil, fmt.Errorf("job %s: %v: %s", job, result.Status, result.Message)
		}
	}
}

func main() {
	predictions, err := predict("churn", instance{"age": 41, "plan": "gold"})
	check(err)
	fmt.Println("predicted:", text(predictions))

	order := "order-" + randomName()
	customers := []instance{{"age": 41, "plan": "gold"}, {"age": 23, "plan": "basic"}}
	job, err := submit(order, "churn", customers...)
	check(err)
	predictions, err = waitFor(job)
	check(err)
	fmt.Println("job:", text(predictions))
	again, err := submit(order, "churn", customers...)
	check(err)
	fmt.Println("repeated:", again == job) // the same request is the same job

	_, err = predict("churn", instance{"age": "41", "plan": "gold"})
	fmt.Println("refused:", err)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func setting(name, otherwise string) string {
	if value, found := os.LookupEnv(name); found {
		return value
	}
	return otherwise
}

func randomName() string {
	name := make([]byte, 16)
	_, err := rand.Read(name)
	check(err)
	return fmt.Sprintf("%x", name)
}

func text(value any) string {
	encoded, err := json.Marshal(value)
	check(err)
	return string(encoded)
}
