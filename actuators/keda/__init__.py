"""An external scaler that KEDA asks for desired replicas (extra `keda`)."""
