"""A tokenizer that is trained from an iterator, with a pre-tokenizer of ours in its threads."""

import threading

from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import PreTokenizer
from tokenizers.trainers import BpeTrainer
from witness import visit


class Words:
    """Splits at spaces."""

    def pre_tokenize(self, text):
        visit()
        text.split(lambda _number, part: part.split(" ", "removed"))


LINES = [f"the {number} quick foxes jump over {number % 13} lazy dogs" for number in range(1000)]


def batches():
    for start in range(0, len(LINES), 100):
        yield LINES[start : start + 100]


tokenizer = Tokenizer(BPE(unk_token="?"))
tokenizer.pre_tokenizer = PreTokenizer.custom(Words())
trainer = BpeTrainer(vocab_size=200, special_tokens=["?"], show_progress=False)
tokenizer.train_from_iterator(batches(), trainer)
print(tokenizer.get_vocab_size())

counts = []


def encode():
    counts.append(sum(len(line.ids) for line in tokenizer.encode_batch(LINES)))


threads = [threading.Thread(target=encode) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(counts)
