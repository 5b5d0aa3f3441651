#!/bin/sh
# Predictions and jobs with curl. HEADRACE_API is the gateway's address, HEADRACE_API_KEY your key if it asks for one.
#
#     sh examples/http.sh
#
# `--retry` repeats a request that was answered with 429 or 503, or not at all, after the seconds of `Retry-After`.
# That is safe for the job below, because its id is ours: one id is one job.
set -eu
api=${HEADRACE_API:-http://127.0.0.1:8080}
order=order-$(date +%s)

call() {
    curl --silent --show-error --retry 5 --retry-connrefused --max-time 60 \
        -H "Authorization: Bearer ${HEADRACE_API_KEY:-none}" -H 'Content-Type: application/json' "$@"
    echo
}

echo 'A prediction, at once:'
call "$api/v1/models/churn:predict" -d '{"instances": [{"age": 41, "plan": "gold"}]}'

echo 'A job with an id of ours, and the same request again, which is the same job:'
job='{"model": "churn", "instances": [{"age": 41, "plan": "gold"}, {"age": 23, "plan": "basic"}]}'
call -X PUT "$api/v1/jobs/$order" -d "$job"
call -X PUT "$api/v1/jobs/$order" -d "$job"

echo 'Its outcome, as soon as there is one, within 20 seconds:'
call -H 'Prefer: wait=20' "$api/v1/jobs/$order"

echo 'An instance that does not fit is an error that names what is wrong:'
call "$api/v1/models/churn:predict" -d '{"instances": [{"age": "41", "plan": "gold"}]}'
