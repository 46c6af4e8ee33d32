// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Order of training examples in which items are visited by weight.

#include <algorithm>
#include <string>
#include <vector>

#include <linnet/core/finite.hpp>
#include <linnet/core/options.hpp>
#include <linnet/core/result.hpp>
#include <linnet/data/epoch_sampler.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Endless sequence of examples in epochs, each as long as there are items. An epoch visits each
/// item `items · weight / Σ weight` times, rounded up or down at random. Equal weights visit each
/// once; weights of 1 are an epoch_sampler.
class weighted_visits {
 public:
  /// Of that many items, in the order of an epoch_sampler; `start` draws how visits are rounded.
  weighted_visits(index items, seed order, seed start)
      : order_(items, order), start_(start), size_(static_cast<std::uint64_t>(items)) {}

  /// Takes the weight of the next item, which an error calls `name`.
  result<void> add(const char* where, const std::string& name, double weight) {
    if (!is_finite(weight) || weight < 0)
      return linnet::error{errc::invalid, where, name + ": weight", "at least 0, finite",
                           is_finite(weight) ? number_text(weight) : "no number"};
    shares_.push_back((shares_.empty() ? 0 : shares_.back()) + weight);
    return {};
  }
  /// Ends the list; an error calls the items `name`.
  result<void> close(const char* where, const std::string& name) {
    const double sum = shares_.back();
    if (!(sum > 0))
      return linnet::error{errc::invalid, where, "weights of the " + name, "a sum above 0", "0"};
    for (double& share : shares_) share *= static_cast<double>(size_) / sum;
    return {};
  }
  /// The item that is example `i`.
  index operator()(std::uint64_t i) const {
    // Equal steps through the weights put end to end, from one random point of each epoch.
    const double start = (random_stream(start_, i / size_).uniform() + 0x1p-25);
    const double point = static_cast<double>(order_(i)) + start;
    const auto at = std::upper_bound(shares_.begin(), shares_.end(), point);
    index found = (std::min)(at - shares_.begin(), std::ssize(shares_) - 1);
    const auto share = [&](index k) { return shares_[static_cast<std::size_t>(k)]; };
    while (found > 0 && !(share(found) > share(found - 1))) --found;  // never one of weight 0
    return found;
  }

 private:
  epoch_sampler order_;
  seed start_;
  std::uint64_t size_;
  std::vector<double> shares_{};  ///< sums of weights up to each item, scaled to their number
};

}  // namespace detail

LINNET_NAMESPACE_END
