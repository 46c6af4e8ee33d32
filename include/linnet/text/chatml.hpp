// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Conversations in ChatML, as the ids that a chat model has learned from.

#include <string>
#include <string_view>
#include <vector>

#include <linnet/text/tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

/// Writes messages as `<|im_start|>role`, a line's end, the text, `<|im_end|>`, a line's end. Both
/// marks are ids of their own, found once; the text between never becomes one of them. So nothing
/// that a user writes begins or ends a message.
class chatml {
 public:
  /// Who speaks.
  enum class role { system, user, assistant };

  /// Finds the marks in a tokenizer, which must outlive the result. Errors: errc::missing for a
  /// tokenizer without `<|im_start|>` or `<|im_end|>`. `where` names its file.
  static result<chatml> open(const tokenizer& pieces,
                             const std::string& where = "chatml::open") LINNET_TRY {
    chatml format(pieces);
    for (const auto& [mark, id] :
         {std::pair("<|im_start|>", &format.begin_), std::pair("<|im_end|>", &format.end_)}) {
      *id = pieces.find_added(mark);
      if (*id < 0)
        return error{errc::missing, where, "added tokens", mark, "a tokenizer without it"};
    }
    return format;
  }
  LINNET_OR_OUT_OF_MEMORY(where)

  // A tokenizer that would be gone before it is used.
  static result<chatml> open(const tokenizer&&, const std::string& = {}) = delete;

  /// The id that begins a message.
  token begin() const { return begin_; }
  /// The id that ends a message, a stop token of generation.
  token end() const { return end_; }
  /// The name of a role in the format.
  static constexpr std::string_view name_of(role who) {
    return who == role::system ? "system" : who == role::user ? "user" : "assistant";
  }

  /// Appends one whole message. False, and nothing appended, where memory lacks.
  bool append(role who, std::string_view text, std::vector<token>& to) const LINNET_TRY {
    const std::size_t before = to.size();
    std::string message(name_of(who));
    message += '\n';
    message += text;
    if (put(message, to) && close(to)) return true;
    to.resize(before);
    return false;
  }
  LINNET_WITHOUT_MEMORY(return false)
  /// Appends the beginning of the assistant's message, which the model then writes.
  bool append_opening(std::vector<token>& to) const { return put("assistant\n", to); }
  /// Appends the end of a message that the model has written.
  bool close(std::vector<token>& to) const LINNET_TRY {
    to.push_back(end_);
    return pieces_->encode("\n", to);
  }
  LINNET_WITHOUT_MEMORY(return false)

 private:
  explicit chatml(const tokenizer& pieces) : pieces_(&pieces) {}

  const tokenizer* pieces_;
  token begin_ = -1, end_ = -1;

  bool put(std::string_view text, std::vector<token>& to) const LINNET_TRY {
    to.push_back(begin_);
    return pieces_->encode(text, to);
  }
  LINNET_WITHOUT_MEMORY(return false)
};

LINNET_NAMESPACE_END
