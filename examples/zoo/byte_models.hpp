// SPDX-License-Identifier: MIT
#pragma once
// The byte-level models that this program trains: a decoder and a T5, each with six feed-forwards.
// `learner` and `deployed` are run time's handles on them.

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "counts.hpp"
#include "running.hpp"

namespace zoo {

enum class byte_model { decoder, t5 };

inline constexpr std::array<std::string_view, 2> byte_model_names{"byte-decoder", "byte-t5"};

constexpr std::string_view name_of(byte_model kind) {
  return byte_model_names[static_cast<std::size_t>(kind)];
}

/// The feed-forwards they are compiled with.
inline constexpr std::array trainable_variants{variant::standard, variant::skip, variant::one,
                                               variant::one_relu, variant::two,  variant::three};

/// How text becomes tokens for a model: the id of a byte is `offset` + its value. A decoder reads
/// `target` bytes and predicts each next one. A T5 reads `source` tokens, the last of which ends
/// the source, and predicts the `target` bytes that follow.
struct reading {
  bool encodes = false;
  ln::token offset = 0;
  ln::index source = 0;
  ln::index target = 0;

  /// Bytes of text that one example covers.
  ln::index span() const { return encodes ? source - 1 + target : target + 1; }
  /// Tokens of one example that go through the model.
  ln::index tokens() const { return source + target; }
};

/// Examples as the models take them: `inputs` are a decoder's tokens or a T5's sources.
struct example_batch {
  ln::index batch = 0;
  std::vector<ln::token> inputs, labels;
};

/// A form of a model on its way to deployment.
enum class form {
  trained,    ///< as it was trained, f32
  collapsed,  ///< 2w and 3w multiplied out, f32
  int8        ///< collapsed if it can be, then quantized
};

/// A model ready to score and to write.
class deployed {
 public:
  deployed() = default;
  deployed(const deployed&) = delete;
  deployed& operator=(const deployed&) = delete;
  virtual ~deployed() = default;

  /// Plans memory for scoring batches of up to `batch` examples.
  virtual void prepare(ln::index batch, int threads) = 0;
  /// Summed loss of a batch in nats. `logits`, unless empty, receives all of them.
  virtual double nats(const example_batch& l, std::span<float> logits = {}) = 0;
  /// A session with these limits.
  virtual std::unique_ptr<running> open(const ln::limits& l) const = 0;
};

/// Whether this program was built with what checkpoints of training need.
#if __has_include(<xxhash.h>)
inline constexpr bool has_checkpoints = true;
#else
inline constexpr bool has_checkpoints = false;
#endif

/// A model that can learn.
class learner {
 public:
  learner() = default;
  learner(const learner&) = delete;
  learner& operator=(const learner&) = delete;
  virtual ~learner() = default;

  virtual const reading& how_to_read() const = 0;
  virtual ln::index vocabulary() const = 0;
  /// Whether there is anything to collapse.
  virtual bool collapses() const = 0;
  /// Parameters, FLOPs of one example, bytes. For int8, `bytes` are those of int8 storage.
  virtual counts cost(form f) const = 0;

  /// Fresh weights and a trainer for batches of this size.
  virtual void begin(ln::index batch, int threads, std::uint64_t seed) = 0;
  /// One optimizer step; returns the mean loss in nats per predicted byte before it.
  virtual double step(const example_batch& l, double rate) = 0;
  /// Summed loss in nats with the present weights.
  virtual double nats(const example_batch& l) = 0;
  /// Writes all that training consists of between two steps, with some bytes of the caller's.
  virtual void save_checkpoint(const std::string& path, std::span<const std::byte> own) = 0;
  /// Puts training where a checkpoint stands; false, and nothing changed, if there is none.
  virtual bool load_checkpoint(const std::string& path, std::span<std::byte> own) = 0;
  /// Ends training and frees its memory; the weights stay.
  virtual void finish() = 0;

  virtual std::unique_ptr<deployed> deploy(form f) const = 0;
  virtual void save(const std::string& path, std::string_view model,
                    std::string_view ffn) const = 0;
  virtual void load(const std::string& path) = 0;
};

/// A model that has neither weights nor memory yet; begin() or load() gives it some.
std::unique_ptr<learner> make_learner(byte_model kind, variant v);

}  // namespace zoo
