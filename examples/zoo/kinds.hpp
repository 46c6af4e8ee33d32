#pragma once
// The kinds of attention (and other mixers) that zoo bench measures, as run time sees them.

#include <linnet/core/types.hpp>
#include <memory>
#include <string>
#include <vector>

namespace zoo {

namespace ln = linnet;

/// Sizes of every measured layer: width of the model, heads.
inline constexpr ln::index kind_width = 64, kind_heads = 4;

/// One layer with weights and buffers for one sequence of a fixed length.
class lone_layer {
 public:
  lone_layer() = default;
  lone_layer(const lone_layer&) = delete;
  lone_layer& operator=(const lone_layer&) = delete;
  virtual ~lone_layer() = default;

  virtual void forward() = 0;
  /// After forward(), of a layer that was planned for training.
  virtual void backward() = 0;
};

/// What a layer is planned for.
struct layer_plan {
  ln::index length = 0;
  int threads = 1;
  bool training = false;
};

/// One kind.
struct kind {
  std::string name;          ///< as in C++, such as "sliding_window<64>"
  bool decoder = false;      ///< measured as a layer of a decoder, else of an encoder
  ln::index longest = 0;     ///< most tokens that it can read; 0 for any
  ln::index parameters = 0;  ///< of the layer
  /// Operations of a forward call that are done: half a square where queries see no later keys.
  double (*flops)(ln::index length) = nullptr;
  ln::index (*bytes)(const layer_plan& p) = nullptr;  ///< of its buffers
  std::unique_ptr<lone_layer> (*make)(const layer_plan& p) = nullptr;

  /// What the command line calls it: the name without numbers.
  std::string word() const { return name.substr(0, name.find('<')); }
};

// Each of these is compiled in a source file of its own, which keeps compilers small and parallel.
void add_exact_kinds(std::vector<kind>& all);      ///< full, sliding_window, sinks, longformer
void add_sparse_kinds(std::vector<kind>& all);     ///< lsh, routing
void add_low_rank_kinds(std::vector<kind>& all);   ///< linear, linformer, nystrom, fnet
void add_recurrent_kinds(std::vector<kind>& all);  ///< mamba, rwkv4, rwkv7

}  // namespace zoo
