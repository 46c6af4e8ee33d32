// SPDX-License-Identifier: MIT
#pragma once
// Checkpoints of trainers, each with some bytes of the caller's.

#include <algorithm>
#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include <linnet/checkpoint.hpp>

#include "basics.hpp"

namespace support {

/// Writes a checkpoint of a trainer with some bytes of the caller's.
template <class Trainer>
void save_run(const std::string& path, Trainer& train, std::span<const std::byte> own) {
  take(ln::save_checkpoint(path, train, {{"study", own}}));
}
/// Continues where a checkpoint stands, if there is one.
template <class Trainer>
bool load_run(const std::string& path, Trainer& train, std::span<std::byte> own) {
  auto found = ln::load_checkpoint(path, train);
  if (!found && found.error().code == ln::errc::missing) return false;
  const auto all = take(std::move(found));
  const auto* const bytes = all.find("study");
  if (bytes == nullptr || bytes->size() != own.size())
    throw failure(path + ": not a checkpoint of this study");
  std::copy(bytes->begin(), bytes->end(), own.begin());
  return true;
}

/// What a model that `Trainer` trains does for take_steps(). An interface among `Bases` may have
/// the same as virtual functions.
template <class Trainer, class... Bases>
class in_training : public Bases... {
 public:
  ln::index steps() const { return trainer_->steps(); }
  /// Global gradient norm of the last step.
  double norm() const { return trainer_->gradient_norm(); }
  void save_checkpoint(const std::string& path, std::span<const std::byte> own) {
    save_run(path, *trainer_, own);
  }
  /// Continues where a checkpoint stands, if there is one.
  bool load_checkpoint(const std::string& path, std::span<std::byte> own) {
    return load_run(path, *trainer_, own);
  }

 protected:
  std::optional<Trainer> trainer_;
};

}  // namespace support
