// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Where tokenizers put ids: a vector that grows, or a caller's span.

#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include <linnet/core/result.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// A caller's span that counts on when it is full.
class token_room {
 public:
  explicit token_room(std::span<token> room) : room_(room) {}

  void push_back(token id) {
    if (count_ < room_.size()) room_[count_] = id;
    ++count_;
  }
  /// The number of ids, or what encode() says where there was no room for them.
  result<index> filled() const {
    if (count_ > room_.size())
      return error{errc::invalid, "encode", "ids", "room for " + std::to_string(count_),
                   std::to_string(room_.size())};
    return static_cast<index>(count_);
  }

 private:
  std::span<token> room_;
  std::size_t count_ = 0;
};

/// Refers to a vector or to a token_room.
class token_sink {
 public:
  token_sink(std::vector<token>& all) : all_(&all) {}
  token_sink(token_room& room) : room_(&room) {}

  void push_back(token id) const {
    if (all_)
      all_->push_back(id);
    else
      room_->push_back(id);
  }
  void append(std::span<const token> ids) const {
    if (all_)
      all_->insert(all_->end(), ids.begin(), ids.end());
    else
      for (const token id : ids) room_->push_back(id);
  }

 private:
  std::vector<token>* all_ = nullptr;
  token_room* room_ = nullptr;
};

}  // namespace detail

LINNET_NAMESPACE_END
