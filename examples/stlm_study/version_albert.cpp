#include "learner_of.hpp"

#if __has_include(<linnet/nn/sharing.hpp>)
namespace study {

std::unique_ptr<learner> make_albert(bool full, const token_table& tokens) {
  return make_learner<ln::decoder<small, ln::share::all, ln::embedding::factorised<32>>,
                      ln::decoder<table_1, ln::share::all, ln::embedding::factorised<128>>>(full,
                                                                                            tokens);
}

}  // namespace study
#endif
