// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// GPT-2's encoder.json, which repeats the ids that follow from vocab.bpe.

#include <algorithm>

#include <linnet/file/json.hpp>
#include <linnet/text/bpe_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Compares the events of an encoder.json with a tokenizer.
template <class Tokenizer>
struct encoder_reader {
  const Tokenizer& tokenizer;
  std::string where;
  std::vector<bool> seen{};
  error failure{};
  std::string name{}, bytes{};
  bool inside = false;

  bool open(bool array) {
    if (inside || array) return fail("content", "an object of ids", array ? "an array" : "more");
    return inside = true;
  }
  bool close() { return true; }
  bool key(std::string_view text) {
    name = text;
    return true;
  }
  bool scalar(const json_scalar& value) {
    if (!inside) return fail("content", "an object of ids", value.text());
    token id = tokenizer.find_added(name);
    bytes.clear();
    if (id < 0 && append_bytes_of(name, bytes)) id = tokenizer.find(bytes);
    const std::string what = json_quoted(printable(name));
    if (id < 0) return fail(what, "a piece of the tokenizer", "another", errc::mismatch);
    if (!value.whole || value.count != static_cast<std::uint64_t>(id))
      return fail(what, std::to_string(id) + " (the tokenizer)", value.text(), errc::mismatch);
    if (seen[static_cast<std::size_t>(id)]) return fail(what, "it once", "it twice");
    return seen[static_cast<std::size_t>(id)] = true;
  }
  bool fail(std::string what, std::string expected, std::string got, errc code = errc::malformed) {
    failure = {code, where, std::move(what), std::move(expected), std::move(got)};
    return false;
  }
};

}  // namespace detail

/// Checks that an encoder.json (vocab.json at Hugging Face) gives every piece of a tokenizer the id
/// that it has, and no other pieces. The tokenizer is of byte pairs. Errors: errc::mismatch,
/// errc::malformed, errc::unsupported.
template <class Tokenizer>
result<void> check_encoder_json(const Tokenizer& tokenizer, std::span<const std::byte> text,
                                const std::string& where = "encoder.json") LINNET_TRY {
  detail::encoder_reader<Tokenizer> reader{tokenizer, where};
  reader.seen.resize(static_cast<std::size_t>(tokenizer.vocabulary()));
  if (auto read = detail::read_json(text, bpe_tokenizer::longest_file, where, "content", reader);
      !read)
    return read.error();
  const auto lacking = std::find(reader.seen.begin(), reader.seen.end(), false);
  if (lacking == reader.seen.end()) return {};
  const auto id = static_cast<token>(lacking - reader.seen.begin());
  return error{errc::mismatch, where, "content", "an entry with the id " + std::to_string(id),
               "none"};
}
LINNET_OR_OUT_OF_MEMORY(where)

LINNET_NAMESPACE_END
