"""A tag for each word: where tags go among sub-tokens, and how entities are scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coldfusion_shared.data import Split, load_dataset
from coldfusion_shared.errors import BadData, BadModel
from coldfusion_shared.tasks import task_named
from coldfusion_shared.tasks.pretrained import load_tokenizer
from coldfusion_shared.tasks.token_classification import _score
from coldfusion_shared.tasks.tokens import IGNORED
from tests.shared.tasks.rows import one_batch, read_csv, read_rows, tuned, write_rows
from tests.tiny_models import ENCODERS, tiny_bert, tiny_model

TASK = task_named("token-classification")
WORDS = ["the", "film", "Xy", "was", "great", "."]
TAGS = ["O", "B-ART", "I-ART", "O", "B-PRAISE", "O"]


def rows(count: int = 60) -> list[dict[str, Any]]:
    """Every other sentence lacks its praise."""
    return [
        {"tokens": WORDS[: 6 - 2 * (i % 2)] + [str(i)], "ner_tags": TAGS[: 6 - 2 * (i % 2)] + ["O"]}
        for i in range(count)
    ]


def test_lists_are_read(tmp_path: Path) -> None:
    dataset = read_rows(tmp_path, rows())
    assert (dataset.task, dataset.labels) == (
        "token-classification", ("B-ART", "B-PRAISE", "I-ART", "O"),
    )  # fmt: skip
    for words, tags in dataset.test.keys(["tokens", "tags"]):
        expected = dict(zip([*WORDS, words[-1]], [*TAGS, "O"], strict=True))
        assert [dataset.labels[tag] for tag in tags] == [expected[word] for word in words]
    assert dataset.test.names == dataset.train.sample(3, 1).names == dataset.labels


def test_other_ways_to_write_it_are_the_same(tmp_path: Path) -> None:
    lists = read_rows(tmp_path, rows())
    lines = [f"{' '.join(row['tokens'])},{' '.join(row['ner_tags'])}" for row in rows()]
    assert read_csv(tmp_path, "\n".join(["tokens,tags", *lines])).digest == lists.digest
    sentences = (
        "\n".join(
            f"{word} x y {tag}" for word, tag in zip(row["tokens"], row["ner_tags"], strict=True)
        )
        for row in rows()
    )
    text = "-DOCSTART- -X- O O\n\n" + "\n\n".join(sentences) + "\n"
    (tmp_path / "mine.conll").write_text(text)
    assert load_dataset(str(tmp_path / "mine.conll")).digest == lists.digest
    number = {"O": 0, "B-ART": 1, "I-ART": 2, "B-PRAISE": 3}
    numbered = [{**row, "ner_tags": [number[tag] for tag in row["ner_tags"]]} for row in rows()]
    assert read_rows(tmp_path, numbered).labels == ("0", "1", "2", "3")


@pytest.mark.parametrize("kind", ENCODERS)
def test_a_tag_stands_at_its_words_first_sub_token(tmp_path: Path, kind: str) -> None:
    tokenizer = load_tokenizer(tiny_model(tmp_path / "base", kind))
    split = Split({"tokens": (("film", "unseen", "was", "é", "."),), "tags": ((3, 1, 2, 0, 4),)})
    (example,) = TASK.encode(tokenizer, split, 60)
    tokens = tokenizer.convert_ids_to_tokens(example["input_ids"])
    tagged = {i: tag for i, tag in enumerate(example["labels"]) if tag != IGNORED}
    assert list(tagged.values()) == [3, 1, 2, 0, 4]
    assert [tokens[i].strip("Ġ")[0] for i in tagged][:3] == ["f", "u", "w"]
    assert len(example["labels"]) == len(tokens) > 9
    assert example["labels"][0] == example["labels"][-1] == IGNORED


def test_words_that_are_cut_have_no_tag(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_bert(tmp_path / "base"))
    split = Split({"tokens": (("film", "was", "good", "bad"),), "tags": ((1, 2, 3, 4),)})
    (example,) = TASK.encode(tokenizer, split, 4)
    assert example["labels"] == [IGNORED, 1, 2, IGNORED]


def test_a_tokenizer_that_knows_no_places_is_refused(tmp_path: Path) -> None:
    from transformers import BertTokenizer

    slow: Any = BertTokenizer
    tokenizer = slow.from_pretrained(tiny_bert(tmp_path / "base"))

    class Slow:
        is_fast = False

    split = Split({"tokens": (("film",),), "tags": ((1,),)})
    with pytest.raises(BadModel, match="does not say which characters"):
        TASK.encode(Slow(), split, 4)
    assert tokenizer.is_fast


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_batch_is_padded_with_what_does_not_count(tmp_path: Path, kind: str, side: str) -> None:
    dataset = read_rows(tmp_path, rows())
    base = tiny_model(tmp_path / "base", kind)
    tokenizer = load_tokenizer(base)
    tokenizer.padding_side = side
    tokenizer.save_pretrained(base)
    output, batch = one_batch(base, dataset)
    assert output.logits.shape == (*batch["input_ids"].shape, 4)
    assert output.loss.isfinite()
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()
    for tags, labels in zip(dataset.train["tags"], batch["labels"].tolist(), strict=False):
        assert tuple(tag for tag in labels if tag != IGNORED) == tags


def test_whole_entities_count() -> None:
    names = ("B-X", "B-Y", "I-X", "O")
    truth = np.array([[IGNORED, 0, 2, 3, 1, IGNORED], [IGNORED, 3, 0, IGNORED, 3, IGNORED]])
    said = np.array([[3, 0, 3, 3, 1, 3], [3, 3, 0, 2, 3, 1]])
    # Of X(1-2), Y(4), X(2): the first was found too short. 2 of 3 found, 3 said.
    assert _score(names, said, truth) == pytest.approx({"F1": 100 * 2 / 3, "accuracy": 100 * 6 / 7})
    assert _score(names, np.full_like(truth, 3), truth)["F1"] == 0


@pytest.mark.parametrize("scheme", ["BILOU", "BIOES", "BMEOW"])
def test_whole_entities_count_in_every_scheme(scheme: str) -> None:
    letters = {
        "BILOU": dict(zip("BIES", "BILU", strict=True)),
        "BMEOW": dict(zip("BIES", "BMEW", strict=True)),
    }.get(scheme, {})
    plain = ("O", *(f"{letter}-{kind}" for kind in "XY" for letter in "BIES"))
    names = tuple(letters.get(name[0], name[0]) + name[1:] for name in plain)
    tags = {name: tag for tag, name in enumerate(plain)}
    truth = np.array([[tags[t] for t in ["S-X", "S-X", "O", "B-Y", "I-Y", "E-Y", "S-Y", "O"]]] * 3)
    assert _score(names, truth, truth) == {"F1": 100.0, "accuracy": 100.0}
    said = np.array([[tags[t] for t in ["S-X", "O", "O", "B-Y", "I-Y", "E-Y", "S-Y", "O"]]] * 3)
    # Of X, X, Y, Y one is not found; two neighbours are two.
    assert _score(names, said, truth)["F1"] == pytest.approx(100 * 2 * 3 / (3 + 4))


def test_tags_of_single_words_are_scored_by_the_word() -> None:
    names = ("NOUN", "O", "VERB")
    truth = np.array([[0, 2, IGNORED, 1]])
    assert _score(names, np.array([[0, 2, 2, 0]]), truth) == pytest.approx(
        {"F1": 100 * 2 / 3, "accuracy": 100 * 2 / 3}
    )


def test_it_learns(tmp_path: Path) -> None:
    dataset = read_rows(tmp_path, rows(100))
    result = tuned(tiny_bert(tmp_path / "base"), dataset, tmp_path / "out")
    assert (result.task, result.metric) == ("token-classification", "F1")
    assert result.test > 90


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "lengths": ({"tokens": ["a", "b"], "ner_tags": ["O"]}, "line 1: 2 words have 1 tags"),
    "no words": ({"tokens": [], "ner_tags": []}, "line 1: column 'ner_tags' holds no tags"),
    "a number": ({"tokens": ["a", 7], "ner_tags": ["O", "O"]}, "holds 7 among its words"),
    "null word": ({"tokens": ["a", None], "ner_tags": ["O", "O"]}, "holds None among its words"),
    "null tag": ({"tokens": ["a", "b"], "ner_tags": ["O", None]}, "line 1: word 2 has no tag"),
    "no list": ({"tokens": 3, "ner_tags": ["O"]}, "line 1: column 'tokens' holds 3, which is not"),
    "missing": ({"tokens": ["a"], "ner_tags": None}, "line 1: column 'ner_tags' holds None"),
    "unseen": ({"tokens": ["a"], "ner_tags": ["B-NEW"]}, "line 1: the label 'B-NEW' is not in"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_rows(tmp_path: Path, case: str) -> None:
    row, message = BAD[case]
    write_rows(tmp_path / "d" / "train.jsonl", rows())
    write_rows(tmp_path / "d" / "test.jsonl", [row])
    with pytest.raises(BadData, match=message):
        load_dataset(str(tmp_path / "d"))


def test_a_conll_line_without_a_tag(tmp_path: Path) -> None:
    (tmp_path / "mine.conll").write_text("a O\nb\n")
    with pytest.raises(
        BadData, match=r"mine\.conll, line 2: expected a word and its tag, found 'b'"
    ):
        load_dataset(str(tmp_path / "mine.conll"))
