"""Plan, prove and roll out fleets for disaggregated LLM inference."""
