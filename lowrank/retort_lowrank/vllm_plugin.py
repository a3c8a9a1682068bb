"""What vLLM calls at start-up: our architectures run on its transformers backend."""


def register() -> None:
    """Register the model types with transformers and the architectures with vLLM.

    The backend is named by a string, because importing it here would initialise vLLM too early.
    """
    from vllm import ModelRegistry

    import retort_lowrank

    backend = "vllm.model_executor.models.transformers:TransformersForCausalLM"
    for _, model in retort_lowrank.FACTORIZED.values():
        ModelRegistry.register_model(model.__name__, backend)
