// A recurrent state cannot take tokens back.
// expect: rewinds
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 2,
                                  .layers = 2,
                                  .vocabulary = 10,
                                  .context = 4};
#if defined(LINNET_FAIL)
using Model = ln::rwkv7<shape>;
#else
using Model = ln::decoder<shape>;
#endif
void take_back(ln::session<Model>& s) { s.truncate(1); }
