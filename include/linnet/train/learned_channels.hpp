// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Scales and shifts of channels that are learned: equivalent transformations of a block (Shao et
/// al. 2023, section 3.3).

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include <linnet/compress/channel_map.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

/// Numbers of the channels of a set, with what an optimizer keeps of them.
struct learned_channels {
  const channel_set<float>* set;
  std::vector<float> numbers, gradient, first, second;

  explicit learned_channels(const channel_set<float>& of)
      : set(&of), numbers(static_cast<std::size_t>(of.width)) {
    gradient = first = second = numbers;
  }
  void clear() {
    for (auto* const one : {&numbers, &first, &second}) std::fill(one->begin(), one->end(), 0.0f);
  }
  /// The gradient of the channel that number `c` of `side` is.
  float& gradient_at(const channel_side<float>& side, index c) {
    return gradient[static_cast<std::size_t>(set->channel_of(c, side.length()))];
  }
};

/// Scales of a set of channels, by their logarithms: what reads a channel is multiplied.
struct learned_scales : learned_channels {
  std::vector<double> scales;

  explicit learned_scales(const channel_set<float>& of)
      : learned_channels(of), scales(numbers.size(), 1) {}
  /// Begins with no scales.
  void clear() {
    learned_channels::clear();
    update();
  }
  void update() {
    for (std::size_t i = 0; i < numbers.size(); ++i)
      scales[i] = std::exp(static_cast<double>(numbers[i]));
  }
  /// From the gradient by the scaled weights: what reads a channel grows with its scale, what
  /// writes it shrinks. Channels that rotary positions mix have one scale.
  template <class G>
  void find_gradient(G& g) {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    index ordinal = 0;
    g.visit([&](const parameter_path&, const tensor_info&, float* slopes) {
      for (const bool reads : {true, false})
        for (const auto& side : reads ? set->readers : set->writers) {
          if (side.ordinal != ordinal) continue;
          auto by = side;
          by.data = slopes;
          for (index c = 0; c < side.length(); ++c) {
            double sum = 0;
            for (index i = 0; i < side.depth(); ++i)
              sum += static_cast<double>(by.at(c, i)) * static_cast<double>(side.at(c, i));
            gradient_at(side, c) += static_cast<float>(reads ? sum : -sum);
          }
        }
      ++ordinal;
    });
    for (index c = 0; c < set->width; ++c)
      if (const index other = set->partner_of(c); other > c) {
        float &a = gradient[static_cast<std::size_t>(c)],
              &b = gradient[static_cast<std::size_t>(other)];
        a = b = a + b;
      }
  }
};

/// Shifts of a set of channels: taken from a channel where it is written, and given back by the
/// biases of what reads it.
struct learned_shifts : learned_channels {
  using learned_channels::learned_channels;

  /// From the gradient by weights that are shifted first, and then scaled; `scales` are those of
  /// this set, or null.
  template <class G>
  void find_gradient(G& g, const std::vector<double>* scales) {
    std::fill(gradient.begin(), gradient.end(), 0.0f);
    index ordinal = 0;
    g.visit([&](const parameter_path&, const tensor_info&, float* slopes) {
      for (const auto& side : set->readers)
        if (side.added_ordinal == ordinal)
          for (index c = 0; c < side.length(); ++c) {
            double sum = 0;
            for (index i = 0; i < side.depth(); ++i)
              sum += static_cast<double>(slopes[i]) * static_cast<double>(side.at(c, i));
            gradient_at(side, c) += static_cast<float>(sum);
          }
      for (const auto& side : set->writers)
        if (side.ordinal == ordinal && side.kind == role::bias)
          for (index c = 0; c < side.length(); ++c) gradient_at(side, c) -= slopes[c];
      ++ordinal;
    });
    if (scales)
      for (std::size_t c = 0; c < gradient.size(); ++c)
        gradient[c] = static_cast<float>(static_cast<double>(gradient[c]) / (*scales)[c]);
  }
};

/// All that is learned of the channels of a block.
class learned_transformation {
 public:
  /// Which kinds are learned, of channels of `map`.
  struct kinds {
    bool scales, scores, shifts;
  };
  learned_transformation(const channel_map<float>& map, const kinds& which) {
    for (const auto& set : map.sets()) {
      const bool scaled = which.scales && can_scale(set), shifted = which.shifts && can_shift(set);
      if (scaled) scales_.emplace_back(set);
      if (shifted) shifts_.emplace_back(set, scaled ? std::ssize(scales_) - 1 : -1);
    }
    if (which.scores)
      for (const auto& set : map.scores()) scores_.emplace_back(set);
  }
  bool has_scores() const { return !scores_.empty(); }
  bool has_shifts() const { return !shifts_.empty(); }
  /// Begins with none.
  void clear() {
    for (auto* const all : {&scales_, &scores_})
      for (auto& one : *all) one.clear();
    for (auto& one : shifts_) one.shifts.clear();
  }
  /// Transforms the weights that the map is of.
  void apply() const {
    for (const auto& one : shifts_) shift_channels(*one.shifts.set, one.shifts.numbers);
    for (const auto* const all : {&scales_, &scores_})
      for (const auto& one : *all) scale_channels(*one.set, one.scales);
  }
  /// Takes a step: `g` is by the transformed weights, and move(kind, numbers) moves what is learned
  /// by its gradient. Kinds are 0 for scales, 1 for scores, 2 for shifts.
  template <class G, class Move>
  void step(const team& threads, G& g, Move&& move) {
    threads.once([&] {
      for (auto* const all : {&scales_, &scores_})
        for (auto& one : *all) one.find_gradient(g);
      for (auto& one : shifts_)
        one.shifts.find_gradient(
            g, one.scales < 0 ? nullptr : &scales_[static_cast<std::size_t>(one.scales)].scales);
    });
    for (auto& one : scales_) move(0, one);
    for (auto& one : scores_) move(1, one);
    for (auto& one : shifts_) move(2, one.shifts);
    threads.once([&] {
      for (auto* const all : {&scales_, &scores_})
        for (auto& one : *all) one.update();
    });
  }

 private:
  struct shifts_beside {
    learned_shifts shifts;
    index scales;  ///< which scales the set has, or -1
    shifts_beside(const channel_set<float>& set, index of) : shifts(set), scales(of) {}
  };

  std::vector<learned_scales> scales_, scores_;
  std::vector<shifts_beside> shifts_;
};

}  // namespace detail

LINNET_NAMESPACE_END
