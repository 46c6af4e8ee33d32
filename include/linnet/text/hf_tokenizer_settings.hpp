// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// The settings of a tokenizer.json: model, normalizer, pre-tokenizer and decoder.

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <linnet/text/hf_tokenizer_reader.hpp>
#include <linnet/text/splitter.hpp>
#include <linnet/text/tokenizer_parts.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// The bytes of a text in base 64, or none if it is another text.
inline std::string from_base64(std::string_view text) {
  std::string bytes;
  std::uint32_t bits = 0;
  int count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    const int digit = c >= 'A' && c <= 'Z'   ? c - 'A'
                      : c >= 'a' && c <= 'z' ? c - 'a' + 26
                      : c >= '0' && c <= '9' ? c - '0' + 52
                      : c == '+'             ? 62
                      : c == '/'             ? 63
                                             : -1;
    if (digit < 0) return {};
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    count += 6;
    if (count < 8) continue;
    count -= 8;
    bytes += static_cast<char>(static_cast<unsigned char>(bits >> count));
  }
  return bytes;
}

/// Turns the settings into parts. The failure names the first one that linnet does not follow.
class hf_tokenizer_settings {
 public:
  explicit hf_tokenizer_settings(const hf_tokenizer_reader& file) : file_(file) {
    for (const key_value& f : file.facts) facts_.push_back({&f, false});
    std::sort(facts_.begin(), facts_.end(),
              [](const fact& a, const fact& b) { return a.is->key < b.is->key; });
  }

  /// Applies all settings. Errors: errc::unsupported, errc::malformed (one that is there twice).
  result<void> apply(tokenizer_parts& parts) {
    const auto twice =
        std::adjacent_find(facts_.begin(), facts_.end(),
                           [](const fact& a, const fact& b) { return a.is->key == b.is->key; });
    if (twice != facts_.end())
      return error{errc::malformed, file_.where, twice->is->key, "it once", "it twice"};
    const auto with = [&](auto member) {
      return [this, &parts, member](const std::string& name, const std::string& type) {
        return (this->*member)(name, type, parts);
      };
    };
    const bool done =
        model(parts) &&
        each_step("normalizer", "normalizers", with(&hf_tokenizer_settings::normalizer)) &&
        each_step("pre_tokenizer", "pretokenizers", with(&hf_tokenizer_settings::pre_tokenizer)) &&
        each_step("decoder", "decoders", with(&hf_tokenizer_settings::decoder)) &&
        fit_together(parts) && all_used();
    return done ? result<void>() : failure_;
  }
  /// The id of the unknown token.
  result<void> find_unknown(tokenizer_parts& parts) {
    using models = tokenizer_parts::models;
    const char* const key = parts.model == models::unigram ? "model.unk_id" : "model.unk_token";
    const std::string* const value = get(key);
    if (!value) return {};
    if (parts.model == models::unigram) {
      const index id = whole(*value);
      if (id < 0 || id >= std::ssize(file_.ids))
        return error{errc::malformed, file_.where, key, "an id of model.vocab", printable(*value)};
      parts.unknown = static_cast<token>(id);
      return {};
    }
    for (std::size_t i = 0; i < file_.vocabulary.size(); ++i)
      if (file_.vocabulary[i] == unquoted(*value) && file_.ids[i] < INT32_MAX) {
        parts.unknown = static_cast<token>(file_.ids[i]);
        return {};
      }
    if (parts.model == models::byte_bpe) return {};
    return error{errc::malformed, file_.where, key, "a piece of model.vocab", printable(*value)};
  }

 private:
  struct fact {
    const key_value* is;
    bool used;
  };
  const hf_tokenizer_reader& file_;
  std::vector<fact> facts_;  ///< by key
  error failure_{};
  // The decoder's work.
  bool bytes_ = false, byte_decoder_ = false, wordpiece_ = false, spaces_ = false,
       byte_fallback_ = false;
  std::string decoder_prefix_{};

  /// The value of a setting, or null for none and for null.
  const std::string* get(const std::string& key) {
    const auto at =
        std::lower_bound(facts_.begin(), facts_.end(), key,
                         [](const fact& f, const std::string& k) { return f.is->key < k; });
    if (at == facts_.end() || at->is->key != key) return nullptr;
    at->used = true;
    return at->is->value == "null" ? nullptr : &at->is->value;
  }
  bool has_within(const std::string& prefix) const {
    const auto at =
        std::lower_bound(facts_.begin(), facts_.end(), prefix,
                         [](const fact& f, const std::string& k) { return f.is->key < k; });
    return at != facts_.end() && at->is->key.starts_with(prefix);
  }
  static std::string unquoted(const std::string& value) {
    return value.size() >= 2 && value[0] == '"' ? value.substr(1, value.size() - 2) : value;
  }
  static index whole(const std::string& value) {
    if (value.empty() || value.size() > 9) return -1;
    index number = 0;
    for (const char c : value) {
      if (c < '0' || c > '9') return -1;
      number = 10 * number + (c - '0');
    }
    return number;
  }
  bool refuse(std::string key, std::string expected, const std::string& got) {
    failure_ = {errc::unsupported, file_.where, std::move(key), std::move(expected),
                printable(got)};
    return false;
  }
  /// Reads a truth value.
  bool read(const std::string& key, bool& to) {
    const std::string* const value = get(key);
    if (!value) return true;
    if (*value != "true" && *value != "false") return refuse(key, "true or false", *value);
    to = *value == "true";
    return true;
  }
  /// Reads a text.
  bool read(const std::string& key, std::string& to) {
    const std::string* const value = get(key);
    if (!value) return true;
    if ((*value)[0] != '"') return refuse(key, "a text", *value);
    to = unquoted(*value);
    return true;
  }
  /// Refuses all values but one, and none at all if `needed`.
  bool only(const std::string& key, const std::string& expected, bool needed = false) {
    const std::string* const value = get(key);
    if (value ? *value == expected : !needed) return true;
    return refuse(key, expected, value ? *value : "none");
  }

  /// Calls handle(name, type) for a step, or for those of a sequence.
  template <class F>
  bool each_step(const std::string& name, const char* list, F&& handle) {
    if (const std::string* const value = get(name)) return refuse(name, "an object", *value);
    if (!has_within(name + ".")) return true;
    std::string type;
    if (!read(name + ".type", type)) return false;
    if (type != "Sequence") return handle(name, type);
    for (std::size_t i = 0;; ++i) {
      const std::string inner = name + "." + list + "[" + std::to_string(i) + "]";
      if (!has_within(inner + ".")) return true;
      if (!each_step(inner, list, handle)) return false;
    }
  }

  bool model(tokenizer_parts& parts) {
    using models = tokenizer_parts::models;
    std::string type = "BPE", prefix;
    if (!read("model.type", type) || !read("model.continuing_subword_prefix", prefix) ||
        !read("model.byte_fallback", parts.byte_fallback))
      return false;
    if (type == "WordPiece") {
      parts.model = models::wordpiece;
      parts.spelling = tokenizer_parts::spellings::wordpiece;
      parts.prefix = prefix;
      if (const std::string* const value = get("model.max_input_chars_per_word")) {
        parts.longest_word = whole(*value);
        if (parts.longest_word < 1)
          return refuse("model.max_input_chars_per_word", "a number of characters", *value);
      }
      return !prefix.empty() || refuse("model.continuing_subword_prefix", "a text", "none");
    }
    if (type == "Unigram") {
      parts.model = models::unigram;
      parts.scores = file_.scores;
      return !file_.has_vocabulary || file_.scores.size() == file_.vocabulary.size() ||
             refuse("model.vocab", "an array of pieces and their scores", "an object");
    }
    if (type != "BPE") return refuse("model.type", "BPE, WordPiece or Unigram", type);
    if (!file_.scores.empty()) return refuse("model.vocab", "an object of ids", "an array");
    if (const std::string* const value = get("model.dropout"); value && *value != "0")
      return refuse("model.dropout", "null", *value);
    for (const char* const key : {"model.continuing_subword_prefix", "model.end_of_word_suffix"})
      if (const std::string* const value = get(key); value && *value != "\"\"")
        return refuse(key, "null", *value);
    parts.model = models::bpe;
    return read("model.ignore_merges", parts.whole_words_first) &&
           read("model.fuse_unk", parts.fuse_unknown);
  }

  bool normalizer(const std::string& name, const std::string& type, tokenizer_parts& parts) {
    using kinds = normalization::kinds;
    const auto add = [&](kinds kind, std::string pattern = {}, std::string content = {}) {
      parts.changes.push_back({kind, std::move(pattern), std::move(content)});
      return true;
    };
    for (const auto& [known, kind] :
         {std::pair("NFC", kinds::nfc), std::pair("NFD", kinds::nfd),
          std::pair("NFKC", kinds::nfkc), std::pair("NFKD", kinds::nfkd),
          std::pair("Lowercase", kinds::lowercase), std::pair("StripAccents", kinds::strip_marks)})
      if (type == known) return add(kind);
    if (type == "BertNormalizer") {
      bool clean = true, chinese = true, lower = true;
      if (!read(name + ".clean_text", clean) || !read(name + ".handle_chinese_chars", chinese) ||
          !read(name + ".lowercase", lower))
        return false;
      bool accents = lower;
      if (!read(name + ".strip_accents", accents)) return false;
      if (clean) add(kinds::clean);
      if (chinese) add(kinds::space_chinese);
      if (accents) add(kinds::nfd), add(kinds::strip_accents);
      return !lower || add(kinds::lowercase);
    }
    std::string text, regex, content;
    if (type == "Prepend") return read(name + ".prepend", text) && add(kinds::prepend, {}, text);
    if (type == "Replace") {
      if (!read(name + ".pattern.String", text) || !read(name + ".pattern.Regex", regex) ||
          !read(name + ".content", content))
        return false;
      if (regex.empty()) return add(kinds::replace, text, content);
      return regex == " {2,}" ? add(kinds::squeeze, " ", content)
                              : refuse(name + ".pattern.Regex", "\" {2,}\"", regex);
    }
    if (type == "Strip") {
      bool left = true, right = true;
      if (!read(name + ".strip_left", left) || !read(name + ".strip_right", right)) return false;
      if (left) add(kinds::strip_left);
      return !right || add(kinds::strip_right);
    }
    if (type == "Precompiled") {
      if (!read(name + ".precompiled_charsmap", text)) return false;
      content = from_base64(text);
      return text.empty() || (content.empty() ? refuse(name + ".precompiled_charsmap",
                                                       "bytes in base 64", "another text")
                                              : add(kinds::charsmap, {}, content));
    }
    return refuse(name + ".type",
                  "NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, BertNormalizer, Prepend, "
                  "Replace, Strip or Precompiled",
                  type);
  }

  bool pre_tokenizer(const std::string& name, const std::string& type, tokenizer_parts& parts) {
    using kinds = word_split::kinds;
    const auto add = [&](kinds kind) {
      parts.splits.push_back({kind});
      return true;
    };
    if (bytes_) return refuse(name + ".type", "\"ByteLevel\" as the last step", type);
    if (type == "ByteLevel") {
      bool regex = true, prefixed = true;
      bytes_ = true;
      const std::string prefix = name + ".add_prefix_space";
      if (!get(prefix)) return refuse(prefix, "true or false", "none");
      if (!read(prefix, prefixed) || !read(name + ".use_regex", regex)) return false;
      get(name + ".trim_offsets");
      if (prefixed) add(kinds::prefix_space);
      return !regex || add(kinds::gpt2);
    }
    if (type == "Digits") {
      bool single = false;
      return read(name + ".individual_digits", single) &&
             add(single ? kinds::digits : kinds::digit_runs);
    }
    if (type == "Split") return split(name, parts);
    if (type == "BertPreTokenizer") return add(kinds::white_space) && add(kinds::punctuation);
    if (type == "Whitespace") return add(kinds::words);
    if (type == "WhitespaceSplit") return add(kinds::white_space);
    if (type == "Punctuation")
      return only(name + ".behavior", "\"Isolated\"") && add(kinds::punctuation);
    if (type == "Metaspace") {
      word_split s{kinds::metaspace};
      std::string scheme;
      if (!metaspace_fields(name, scheme) || !read(name + ".split", s.cut)) return false;
      s.prefix = scheme == "never"   ? word_split::prefixes::never
                 : scheme == "first" ? word_split::prefixes::first
                                     : word_split::prefixes::always;
      parts.splits.push_back(s);
      return true;
    }
    return refuse(name + ".type",
                  "ByteLevel, Digits, Split, BertPreTokenizer, Whitespace, WhitespaceSplit, "
                  "Punctuation or Metaspace",
                  type);
  }
  /// A split by a pattern that is known.
  bool split(const std::string& name, tokenizer_parts& parts) {
    using kinds = word_split::kinds;
    static constexpr std::string_view newer =
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}@| ?[^\\s\\p{L}\\p{N}]+"
        "[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
    static constexpr std::string_view older =
        "@| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
    const auto with = [](std::string_view pattern, std::string_view part) {
      const std::size_t at = pattern.find('@');
      return (std::string(pattern.substr(0, at)) += part) += pattern.substr(at + 1);
    };
    std::string regex, behavior;
    bool invert = false;
    if (!read(name + ".pattern.Regex", regex) || !read(name + ".behavior", behavior) ||
        !read(name + ".invert", invert))
      return false;
    if (const std::string* const text = get(name + ".pattern.String"))
      return refuse(name + ".pattern", "a regular expression that linnet knows", *text);
    if (behavior != (invert ? "Removed" : "Isolated"))
      return refuse(name + ".behavior", invert ? "\"Removed\"" : "\"Isolated\"", behavior);
    for (const auto& [known, kind] :
         {std::pair(with(newer, "{1,3}"), kinds::llama3), std::pair(with(newer, ""), kinds::qwen2),
          std::pair(with(older, "'s|'t|'re|'ve|'m|'ll|'d"), kinds::gpt2),
          std::pair(with(older, "'(?:[sdmt]|ll|ve|re)"), kinds::gpt2)})
      if (regex == known) {
        parts.splits.push_back({kind});
        return true;
      }
    return refuse(name + ".pattern.Regex", "the pattern of GPT-2, Llama 3 or Qwen2",
                  '"' + regex + '"');
  }
  /// The fields that Metaspace has as a pre-tokenizer and as a decoder.
  bool metaspace_fields(const std::string& name, std::string& scheme) {
    bool prefixed = true;  // older files
    if (!only(name + ".replacement", '"' + std::string(metaspace) + '"') ||
        !only(name + ".str_rep", '"' + std::string(metaspace) + '"') ||
        !read(name + ".add_prefix_space", prefixed))
      return false;
    scheme = prefixed ? "always" : "never";
    if (!read(name + ".prepend_scheme", scheme)) return false;
    return scheme == "always" || scheme == "first" || scheme == "never" ||
           refuse(name + ".prepend_scheme", "always, first or never", scheme);
  }

  bool decoder(const std::string& name, const std::string& type, tokenizer_parts& parts) {
    if (type == "ByteLevel") {
      byte_decoder_ = true;
      for (const char* const field : {".add_prefix_space", ".trim_offsets", ".use_regex"})
        get(name + field);
      return true;
    }
    if (type == "WordPiece") {
      wordpiece_ = parts.clean_up = true;
      decoder_prefix_ = "##";
      return read(name + ".prefix", decoder_prefix_) && read(name + ".cleanup", parts.clean_up);
    }
    if (type == "Metaspace") {
      std::string scheme;
      bool cut = true;
      spaces_ = true;
      if (!metaspace_fields(name, scheme) || !read(name + ".split", cut)) return false;
      parts.keep_first_space = scheme == "never";
      return true;
    }
    if (type == "Replace") {
      spaces_ = parts.keep_first_space = true;
      return only(name + ".pattern.String", '"' + std::string(metaspace) + '"', true) &&
             only(name + ".content", "\" \"", true);
    }
    if (type == "ByteFallback") return byte_fallback_ = true;
    if (type == "Fuse") return true;
    if (type == "Strip") {
      const std::string* const start = get(name + ".start");
      if (start && *start != "0" && *start != "1") return refuse(name + ".start", "0 or 1", *start);
      parts.keep_first_space = !start || *start == "0";
      return only(name + ".content", "\" \"") && only(name + ".stop", "0");
    }
    return refuse(name + ".type",
                  "ByteLevel, WordPiece, Metaspace, Replace, ByteFallback, Fuse or Strip", type);
  }

  /// Whether model, pre-tokenizer and decoder are of one kind.
  bool fit_together(tokenizer_parts& parts) {
    using models = tokenizer_parts::models;
    if (bytes_ || byte_decoder_) {
      if (!bytes_) return refuse("pre_tokenizer", "\"ByteLevel\"", "none");
      if (!byte_decoder_) return refuse("decoder", "\"ByteLevel\"", "none");
      if (parts.model != models::bpe)
        return refuse("model.type", "\"BPE\" with \"ByteLevel\"", "another");
      if (parts.byte_fallback)
        return refuse("model.byte_fallback", "false with \"ByteLevel\"", "true");
      parts.model = models::byte_bpe;
      return true;
    }
    if (parts.model == models::wordpiece) {
      if (!wordpiece_) return refuse("decoder", "\"WordPiece\"", "none");
      return decoder_prefix_ == parts.prefix ||
             refuse("decoder.prefix", '"' + parts.prefix + "\" as in the model", decoder_prefix_);
    }
    if (!spaces_ || wordpiece_)
      return refuse("decoder", "\"ByteLevel\", or \"Metaspace\" or \"Replace\" for spaces",
                    wordpiece_ ? "\"WordPiece\"" : "none");
    if (parts.byte_fallback && !byte_fallback_)
      return refuse("decoder", "\"ByteFallback\" as in the model", "none");
    parts.spelling = tokenizer_parts::spellings::metaspace;
    return true;
  }
  /// Refuses settings that nothing has asked for.
  bool all_used() {
    for (const fact& f : facts_)
      if (!f.used && f.is->value != "null" && !f.is->key.starts_with("model"))
        return refuse(f.is->key, "no such setting", f.is->value);
    return true;
  }
};

}  // namespace detail

LINNET_NAMESPACE_END
