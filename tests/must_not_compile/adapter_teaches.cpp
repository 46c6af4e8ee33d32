// SPDX-License-Identifier: MIT
// Teachers are models whose weights are whole.
// expect: linnet: an adapter does not teach; merge\(\) it into a copy of its base's weights
#include <linnet/linnet.hpp>
namespace ln = linnet;
constexpr ln::decoder_shape shape{.d_model = 8,
                                  .d_ff = 16,
                                  .heads = 2,
                                  .kv_heads = 1,
                                  .layers = 1,
                                  .vocabulary = 10,
                                  .context = 8};
using Student = ln::adapted<ln::decoder<shape>, ln::lora<2>>;
#if defined(LINNET_FAIL)
using Teacher = Student;
#else
using Teacher = ln::decoder<shape>;
#endif
static_assert(ln::distillation<Student, Teacher>::footprint({}) > 0);
