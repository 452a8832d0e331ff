"""What the examples of several routes share: they fit together, and run one after another."""

MINUTES = [
    {
        "start_at": f"2026-11-02T11:{minute:02}:00Z",
        "window_s": 60,
        "requests": 100 + 3 * (minute % 7),
        "input_tokens": 80_000 + 2_400 * (minute % 7),
        "output_tokens": 6_000 + 150 * (minute % 7),
        "cached_tokens": 12_000,
    }
    for minute in range(20, 60)
]
"""Forty minutes of observed windows."""

_ROLES = ("prefill", "decode")
FLEET = {
    "pools": [
        {"model": "tiny", "role": role, "accelerator": "cpu-slot", "tp": 1, "ready": 1}
        for role in _ROLES
    ]
}
PROFILE = {
    "schema_version": "poolwise/profile/v1",
    "model": "tiny",
    "accelerator": "cpu-slot",
    "roles": list(_ROLES),
    "prefill": {
        "x_name": "new tokens",
        "y_name": "cached tokens",
        "x": [0, 16384],
        "y": [0, 16384],
        "seconds": [[0.005, 0.005], [1.6434, 1.6434]],
    },
    "decode_step": {
        "x_name": "sequences",
        "y_name": "context tokens per sequence",
        "x": [0, 256],
        "y": [0, 32768],
        "seconds": [[0.01, 0.01], [0.0612, 0.0612]],
    },
    "transfer": {"base_s": 0.002, "bandwidth_bytes_per_s": 1e9},
    "first_token_s": 0.0,
    "limits": {
        "kv_capacity_tokens": 262144,
        "kv_bytes_per_token": 4096,
        "max_num_seqs": 64,
        "max_num_batched_tokens": 2048,
        "max_model_len": 16384,
    },
    "lifecycle": {"start_cold_s": 60, "start_warm_s": 30, "flip_s": 5, "drain_s": 10},
    "provenance": {
        "kind": "measured",
        "source": "an example",
        "measured_at": "2026-01-01T00:00:00Z",
        "machine": "a formula",
        "engine": "none",
        "points": 8,
        "error_ratio": 0.0,
    },
}
SPEC = {
    "apiVersion": "poolwise/v1",
    "name": "demo",
    "models": [
        {
            "name": "tiny",
            "config": {
                "hidden_size": 512,
                "num_hidden_layers": 8,
                "num_attention_heads": 8,
                "num_key_value_heads": 2,
                "head_dim": 64,
                "intermediate_size": 1536,
                "vocab_size": 8192,
                "max_position_embeddings": 32768,
                "torch_dtype": "bfloat16",
            },
        }
    ],
    "slos": [{"model": "tiny", "ttft_s": 0.5, "tpot_s": 0.05, "attainment_ratio": 0.9}],
    "accelerators": [
        {"name": "cpu-slot", "per_node": 8, "inventory": 16, "usd_per_gpu_hour": {"on_demand": 1}}
    ],
    "profiles": [PROFILE],
    "pools": [{"model": "tiny", "role": role, "accelerator": "cpu-slot"} for role in _ROLES],
    "target": {"kind": "dry_run"},
}
