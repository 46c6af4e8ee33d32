// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// A tokenizer as plain lists and settings, for readers of files and for programs that have their
/// vocabulary elsewhere.

#include <string>
#include <vector>

#include <linnet/core/text_list.hpp>
#include <linnet/text/added_texts.hpp>

LINNET_NAMESPACE_BEGIN

/// One change of a text before it is cut into words.
struct normalization {
  /// Kinds of changes, named as in Hugging Face's tokenizers.
  enum class kinds {
    nfc,            ///< Unicode's normal form C
    nfd,            ///< normal form D
    nfkc,           ///< normal form KC
    nfkd,           ///< normal form KD
    lowercase,      ///< each character's lower case
    strip_accents,  ///< marks without width (Mn) are left out, as BERT does behind nfd
    strip_marks,    ///< all marks (M) are left out: Hugging Face's StripAccents
    clean,          ///< BERT: no control characters, and one kind of space
    space_chinese,  ///< BERT: a space before and behind each Chinese character
    prepend,        ///< `content` before a text that is not empty
    replace,        ///< `content` for `pattern`
    squeeze,        ///< `content` for runs of `pattern`, if `least` or more stand together
    strip_left,     ///< no white space at the beginning
    strip_right,    ///< nor at the end
    charsmap        ///< SentencePiece's compiled map, in `content`
  };
  kinds kind;
  std::string pattern{}, content{};
  std::size_t least = 2;
  bool operator==(const normalization&) const = default;
};

/// One way of cutting a text into words. Several work one after the other, each inside the words of
/// the one before.
struct word_split {
  /// How it is cut. The first three are patterns of byte-level models.
  enum class kinds {
    gpt2,          ///< GPT-2's pattern (see gpt2_word())
    llama3,        ///< Llama 3's (see llama3_word())
    qwen2,         ///< Qwen2's: Llama 3's with one number in a word
    digits,        ///< every number is a word
    digit_runs,    ///< neighbouring numbers are a word
    white_space,   ///< words are what white space separates, which is left out
    punctuation,   ///< every punctuation character is a word
    words,         ///< runs of a pattern's \\w, and of what is neither that nor white space
    prefix_space,  ///< a space before a text that begins with none; the text stays whole
    metaspace      ///< SentencePiece: a space becomes "▁", which begins a word
  };
  /// Where metaspace puts a "▁" before a text that begins with none.
  enum class prefixes { always, first, never };
  kinds kind;
  prefixes prefix = prefixes::always;  ///< of metaspace; first: in the first text alone
  bool cut = true;                     ///< of metaspace: false leaves the text whole
  bool operator==(const word_split&) const = default;
};

/// A tokenizer's lists and settings, which tokenizer::assemble() checks.
struct tokenizer_parts {
  enum class models {
    byte_bpe,   ///< byte pairs; tokens are spelled in letters_of()
    bpe,        ///< character pairs, by `merges` or by `scores`
    wordpiece,  ///< the longest piece first (Wu et al. 2016)
    unigram     ///< the most likely pieces (Kudo 2018)
  };
  /// How pieces become text.
  enum class spellings {
    plain,      ///< as they are
    wordpiece,  ///< a space before pieces that do not begin with `prefix`
    metaspace   ///< "▁" is a space; the first space of a text is left out
  };

  models model = models::byte_bpe;
  detail::text_list tokens{};            ///< by id, as the file spells them
  std::vector<double> scores{};          ///< by id: unigram, and bpe without merges
  detail::text_list merges{};            ///< two pieces for each, the lowest rank first
  std::vector<added_token> added{};      ///< by their place in the file
  std::vector<token> hidden{};           ///< ids that no text becomes
  std::vector<normalization> changes{};  ///< the first comes first
  std::vector<word_split> splits{};      ///< the first comes first; none: a text is one word
  spellings spelling = spellings::plain;
  std::string prefix = "##";       ///< of pieces inside a word (wordpiece)
  token unknown = -1;              ///< id of what no piece is there for, or none
  bool byte_fallback = false;      ///< tokens "<0x00>" to "<0xFF>" are bytes
  bool fuse_unknown = false;       ///< neighbouring unknown characters are one token (bpe)
  bool whole_words_first = false;  ///< words that are pieces stay whole, whatever the merges do
  bool keep_first_space = false;   ///< metaspace: a text keeps its first space
  bool clean_up = false;           ///< wordpiece: no space before ".", "n't" and their like
  index longest_word = 100;        ///< characters of a word, above which it is unknown (wordpiece)
  std::string tokens_name = "tokens", merges_name = "merges";  ///< of the lists, in messages
  bool named_by_text = false;  ///< messages name a token by its text, not by its id
};

/// Vocabulary of a GGUF file: the values of its keys tokenizer.ggml.*, as they stand there.
struct ggml_vocabulary {
  std::string model{};          ///< "gpt2", "llama", "bert" or "t5"
  std::string pre{};            ///< of gpt2: "gpt-2", "roberta-bpe", "smollm", "llama-bpe", "qwen2"
  detail::text_list tokens{};   ///< by id
  std::vector<float> scores{};  ///< by id, or none
  std::vector<std::int32_t> types{};  ///< by id, or none: 1 normal, 2 unknown, 3 control, 4
                                      ///< user-defined, 5 unused, 6 byte
  detail::text_list merges{};         ///< two pieces with a space between, by rank
  token unknown = -1;                 ///< unknown_token_id, or none
  bool add_space_prefix = true;
  bool remove_extra_whitespaces = false;
  std::string precompiled_charsmap{};
};

LINNET_NAMESPACE_END
