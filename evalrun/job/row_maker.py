"""The rows of one prompt and one model: what is the same for every sample is prepared once.

A sample with its messages enters; its Request leaves, with its ids.
"""

import hashlib

from evalrun.job.bodies import BodyEncoder
from evalrun.job.canonical import encode_canonical
from evalrun.options import ModelOptions
from evalrun.records import Request, Sample, SimulatorHint


class RowMaker:
    """Makes the requests of one prompt to one model.

    Args:
        prompt: Name of the prompt.
        model: The model.
        encoder: Its bodies.
        offset: How far behind the first row of a sample and prompt those of this model begin, in plan order.
    """

    __slots__ = ("_encoder", "_model", "_names", "_prompt", "endpoint", "offset")

    def __init__(self, prompt: str, model: ModelOptions, encoder: BodyEncoder, *, offset: int) -> None:
        self.endpoint = str(model.endpoint)
        """Name of the endpoint that is asked."""
        self._prompt = prompt
        self._model = model.name
        self._encoder = encoder
        self.offset = offset
        """How far behind the first row of a sample and prompt those of this model begin."""
        self._names = b"%b,%b" % (encode_canonical(prompt), encode_canonical(model.name))

    def make(
        self,
        sample: Sample,
        sample_key: bytes,
        start: int,
        repeat: int,
        messages: tuple[bytes, bytes],
        answer: str | None,
    ) -> Request:
        """Return one row.

        Args:
            sample: The sample.
            sample_key: Its id as canonical JSON.
            start: Index of the first row of this sample and prompt.
            repeat: 0-based.
            messages: As JSON, in the order written and canonical.
            answer: What a right reply says; None when the endpoint is no simulator.
        """
        encoder, params = self._encoder, sample.params
        body, request_key = encoder.encode(messages[0], messages[1], repeat=repeat, answer=answer, row_params=params)
        return Request(
            index=start + self.offset + repeat,
            # As `make_row_id` makes it, from pieces.
            row_id=hashlib.sha256(b"[%b,%b,%d]" % (sample_key, self._names, repeat)).hexdigest(),
            request_key=request_key,
            sample=sample,
            prompt=self._prompt,
            model=self._model,
            endpoint=self.endpoint,
            repeat=repeat,
            body=body,
            hint=None if answer is None else SimulatorHint(answer=answer, sample_id=sample.sample_id, repeat=repeat),
            n_choices=encoder.count_choices(params),
            max_output_tokens=encoder.read_output_limit(params),
        )
