from dataclasses import fields

import pytest

from iyscheck.address import Unreadable
from iyscheck.consent import Reason, permits
from iyscheck.sentences import EXPLANATIONS, WORDS, Language, explain, explain_unreadable


@pytest.mark.parametrize("language", Language)
class TestSentences:
    """Every answer can be explained in every language."""

    def test_complete(self, language: Language) -> None:
        """Each reason has a sentence and what to do, and no two reasons share a sentence."""
        explanations = [explain(reason, language) for reason in Reason]

        for explanation in explanations:
            for sentence in (explanation.why, explanation.do):
                assert sentence[0].isupper()
                assert sentence.endswith(".")
        assert len({explanation.why for explanation in explanations}) == len(Reason)

    def test_only_permissions_say_send(self, language: Language) -> None:
        """The sentences that tell to send are exactly those of the reasons that permit."""
        send = {Language.ENGLISH: "ou may send", Language.TURKISH: "önderebilirsiniz"}[language]

        told = {reason for reason in Reason if send in explain(reason, language).do}

        assert told == {reason for reason in Reason if permits(reason)}

    def test_unreadable(self, language: Language) -> None:
        """Each cause of an unreadable address has a sentence of its own."""
        sentences = {explain_unreadable(cause, language) for cause in Unreadable}

        assert len(sentences) == len(Unreadable)
        assert all(sentence.endswith(".") for sentence in sentences)

    def test_words(self, language: Language) -> None:
        """No word around an answer is missing."""
        assert all(getattr(WORDS[language], field.name) for field in fields(WORDS[language]))


def test_languages_differ() -> None:
    """Turkish is not English left standing."""
    english, turkish = EXPLANATIONS[Language.ENGLISH], EXPLANATIONS[Language.TURKISH]

    assert english.keys() == turkish.keys() == set(Reason)
    assert all(english[reason] != turkish[reason] for reason in Reason)
