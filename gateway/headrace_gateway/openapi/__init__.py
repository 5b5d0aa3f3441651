"""The description of the API: an OpenAPI 3.1 document with the types of each model, made from its contract.

model_schemas    JSON schemas of a model's instances and predictions, and an example
answers          the types of answers that are the same for all models
build            operations, parameters and answers as OpenAPI writes them
native           the operations of the native face
document         the whole document
routes           `GET /openapi.json` and `GET /v1/models/{model}/openapi.json`
"""
