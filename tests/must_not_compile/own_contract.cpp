// SPDX-License-Identifier: MIT
// A model or a layer of one's own that lacks one part of its contract is told which.
// expect: linnet: the model lacks params<Form> or visit
// expect: linnet: the model lacks storage, with_storage<S>, batch or vocabulary
// expect: linnet: the model lacks workspace<T> or plan<T>
// expect: linnet: the model lacks accepts\(batch, limits\)
// expect: linnet: the model lacks describe\(f\)
// expect: linnet::session: .* it lacks longest\(limits\)
// expect: linnet: the layer lacks params<Form> or visit
// expect: linnet: the layer lacks in, out or forward<T, S>
// expect: linnet::embedder: .*what model/contract.hpp says of an embedding_model
// lines: 90: nine refusals
#include <linnet/linnet.hpp>
namespace ln = linnet;
using whole = ln::decoder<ln::decoder_shape{.d_model = 8,
                                            .d_ff = 16,
                                            .heads = 2,
                                            .kv_heads = 2,
                                            .layers = 1,
                                            .vocabulary = 10,
                                            .context = 8}>;
using map = ln::linear<4, 4>;
using texts = ln::encoder<ln::encoder_shape{
    .d_model = 8, .d_ff = 16, .heads = 2, .layers = 1, .vocabulary = 10, .context = 8}>;
enum class part { none, visit, vocabulary, plan, accepts, describe, longest, forward };
template <part, class Whole>
struct without : Whole {};
#if defined(LINNET_FAIL)
template <class Whole>
struct without<part::visit, Whole> : Whole {
  void visit() = delete;
};
template <class Whole>
struct without<part::vocabulary, Whole> : Whole {
  void vocabulary() = delete;
};
template <class Whole>
struct without<part::plan, Whole> : Whole {
  void plan() = delete;
};
template <class Whole>
struct without<part::accepts, Whole> : Whole {
  void accepts() = delete;
};
template <class Whole>
struct without<part::describe, Whole> : Whole {
  void describe() = delete;
};
template <class Whole>
struct without<part::longest, Whole> : Whole {
  void longest() = delete;
};
template <class Whole>
struct without<part::forward, Whole> : Whole {
  void forward() = delete;
};
#endif
template <part Part>
constexpr bool scores =
    ln::detail::check_language_model<without<Part, whole>, float, ln::storage::f32>();
template <part Part>
constexpr bool runs = ln::detail::check_layer<without<Part, map>>();
static_assert(scores<part::none> && scores<part::visit> && scores<part::vocabulary> &&
              scores<part::plan> && scores<part::accepts> && scores<part::describe>);
static_assert(
    ln::detail::check_decoding_model<without<part::longest, whole>, float, ln::storage::f32>());
static_assert(runs<part::none> && runs<part::visit> && runs<part::forward>);
static_assert(sizeof(ln::embedder<without<part::forward, texts>>) > 0);
