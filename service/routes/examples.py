"""Examples for the API's documentation; a test holds them valid."""

from typing import Any

from fastapi.openapi.models import Example

SEEDS = "file-2m556dr78jbs"
EVALUATION = "file-2m556e160v3e"

JOBS: dict[str, Example] = {
    "build": {
        "summary": "Ask a teacher, publish a dataset",
        "value": {
            "kind": "build",
            "build": {
                "kind": "cot",
                "name": "stories",
                "teacher": "demo-teacher",
                "seeds": SEEDS,
                "sampling": {"max_tokens": 200},
            },
        },
    },
    "train": {
        "summary": "Train a student on a dataset",
        "value": {
            "kind": "train",
            "train": {
                "method": "rationale_then_answer",
                "dataset": "stories",
                "student": "examples/demo/models/student",
                "optimization": {"learning_rate": 0.001, "epochs": 20},
            },
        },
    },
    "compress": {
        "summary": "Prune and quantize a model",
        "value": {
            "kind": "compress",
            "compress": {
                "model": "student",
                "dataset": "stories",
                "stages": [{"kind": "wanda", "sparsity": 0.5}, {"kind": "ptq", "scheme": "W8A8"}],
                "evaluate": {"data": EVALUATION},
            },
        },
    },
    "serve": {
        "summary": "Serve a model as a teacher until cancelled",
        "value": {"kind": "serve", "model": "examples/demo/models/teacher", "name": "demo-teacher"},
    },
    "report": {
        "summary": "Draw a finished recipe's report",
        "value": {"kind": "report", "job": "job-2m556dr78jbs"},
    },
    "batch": {
        "summary": "Ask the requests of a file",
        "value": {"kind": "batch", "input": "file-2m556dr78jbs"},
    },
    "recipe": {
        "summary": "The whole chain",
        "value": {
            "kind": "recipe",
            "name": "stories",
            "serve": {
                "kind": "serve",
                "model": "examples/demo/models/teacher",
                "name": "demo-teacher",
            },
            "build": {"kind": "cot", "teacher": "demo-teacher", "seeds": SEEDS},
            "train": {
                "method": "rationale_then_answer",
                "student": "examples/demo/models/student",
            },
            "compress": {"stages": [{"kind": "ptq"}]},
            "evaluate": {"data": EVALUATION},
        },
    },
}

SCHEDULES: dict[str, Example] = {
    "nightly": {
        "summary": "A build each night, caught up once after an outage",
        "value": {
            "name": "nightly",
            "cron": "30 2 * * *",
            "time_zone": "Europe/Berlin",
            "missed": "one",
            "job": JOBS["build"]["value"],
        },
    },
}

TEACHERS: dict[str, Example] = {
    "local": {
        "summary": "A vLLM server on this machine",
        "value": {
            "name": "qwen",
            "base_url": "http://127.0.0.1:8000/v1",
            "served_model": "Qwen/Qwen3-8B",
            "licence": "Apache-2.0",
        },
    },
    "with a key": {
        "summary": "A server that asks for a key",
        "value": {
            "name": "big",
            "base_url": "https://models.example.org/v1",
            "served_model": "big-model",
            "api_key_env": "BIG_MODEL_KEY",
        },
    },
}

IMPORTS: dict[str, Example] = {
    "upload": {
        "summary": "An uploaded file",
        "value": {"name": "mine", "kind": "if", "file": SEEDS},
    },
    "path": {
        "summary": "A directory of the server",
        "value": {"name": "mine", "kind": "cot", "path": "/data/mine"},
    },
}

CLONES: dict[str, Example] = {
    "warmer": {
        "summary": "The same job at another temperature",
        "value": {"set": {"build.sampling.temperature": 0.7}},
    },
}

RETRIES: dict[str, Example] = {
    "longer": {
        "summary": "Rows that were cut off, with more room",
        "value": {"reasons": ["truncated"], "set": {"build.sampling.max_tokens": 1024}},
    },
}

PREVIEWS: dict[str, Example] = {
    "build": {
        "summary": "Five rows of a build, before it is one",
        "value": {"spec": JOBS["build"]["value"], "rows": 5},
    },
}

REVIEWS: dict[str, Example] = {
    "by hand": {
        "summary": "One row taken out by a person",
        "value": {"verdicts": [{"id": "q17", "accept": False, "note": "ambiguous"}]},
    },
}

KEYS: dict[str, Example] = {
    "reader": {
        "summary": "A key that may only look",
        "value": {"name": "the report's page", "scopes": ["read"]},
    },
    "guest": {
        "summary": "A key with limits",
        "value": {"name": "a guest", "limits": {"jobs_at_once": 2, "tokens_per_day": 1000000}},
    },
}

LIMITS: dict[str, Example] = {
    "a guest": {
        "summary": "Sixty requests a minute, two jobs at once, and no limit on tokens",
        "value": {"requests_per_minute": 60, "jobs_at_once": 2, "tokens_per_day": None},
    },
}

LINE = '{"id": "1", "question": "Ann has 2 apples and buys 3. How many?", "answer": "5"}\n'

UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string", "format": "binary"},
                "example": LINE,
            },
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                },
                "example": {"file": LINE},
            },
        },
    }
}
