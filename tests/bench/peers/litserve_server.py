"""An inference server of the field, LitServe, with its own batching; litserve_consumer.py asks it."""

import os

import litserve
from peer import BATCH, classifier


class Emotions(litserve.LitAPI):
    def setup(self, _device: str) -> None:
        self.classify = classifier()

    def decode_request(self, request: dict) -> str:
        return request["text"]

    def batch(self, inputs: list[str]) -> list[str]:
        return list(inputs)

    def predict(self, texts: list[str]) -> list:
        return self.classify(texts, batch_size=BATCH)

    def unbatch(self, output: list) -> list:
        return output

    def encode_response(self, output: list) -> dict:
        return {"scores": output}


if __name__ == "__main__":
    api = Emotions(max_batch_size=BATCH, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(os.environ["PORT"]), generate_client_file=False, log_level="warning")
