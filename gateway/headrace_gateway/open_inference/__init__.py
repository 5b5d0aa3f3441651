"""Open Inference v2, the protocol of KServe, Triton and MLServer, with its extension for binary tensor data.

    routes       health, metadata, infer
    requests     bytes -> a request: named tensors, the outputs it asks for
    instances    tensors -> the instances of a job, by the form of the model's contract
    outputs      predictions -> tensors -> bytes
    metadata     a contract -> the metadata of a model
    tensors      the data of one tensor, as JSON and as bytes

Nobody has to describe a model for it: the contract has its inputs and outputs.
"""
