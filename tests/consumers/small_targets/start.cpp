// SPDX-License-Identifier: MIT
// What a Cortex-M needs to run main() without an operating system: vectors, the start, and a
// debugger's console (semihosting).

#include <cstddef>
#include <cstdint>

extern "C" {
// From link.ld.
extern char data_begin[], data_end[], data_kept[], bss_begin[], bss_end[], stack_top[];
using initializer = void (*)();
extern initializer initializers_begin[], initializers_end[];
void start();
void failed();
}

int main();

namespace {

/// Asks the debugger for something. https://github.com/ARM-software/abi-aa: semihosting.
void ask(std::uint32_t what, const void* with) {
  register std::uint32_t r0 asm("r0") = what;
  register const void* r1 asm("r1") = with;
  asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
}
void end_with(std::uint32_t code) {
  const std::uint32_t why[] = {0x20026, code};  // the program ended itself
  ask(0x20, why);
  for (;;) {
  }
}

std::size_t asked_for = 0;

}  // namespace

void say(const char* line) { ask(0x04, line); }
std::size_t bytes_from_heap() { return asked_for; }

extern "C" {

/// Where malloc() gets memory from: there is none.
void* _sbrk(std::ptrdiff_t bytes) {
  asked_for += static_cast<std::size_t>(bytes);
  return reinterpret_cast<void*>(-1);
}
void failed() {
  say("a fault\n");
  end_with(2);
}
void start() {
  // Floating-point instructions are allowed (CPACR of the ARMv7-M manual).
  *reinterpret_cast<volatile std::uint32_t*>(0xe000ed88) |= 0xfu << 20;
  asm volatile("dsb; isb");
  for (char *to = data_begin, *from = data_kept; to != data_end;) *to++ = *from++;
  for (char* to = bss_begin; to != bss_end;) *to++ = 0;
  for (initializer* f = initializers_begin; f != initializers_end; ++f) (*f)();
  end_with(static_cast<std::uint32_t>(main()));
}

__attribute__((section(".vectors"), used)) const void* const vectors[] = {
    stack_top,
    reinterpret_cast<const void*>(&start),
    reinterpret_cast<const void*>(&failed),
    reinterpret_cast<const void*>(&failed),
    reinterpret_cast<const void*>(&failed),
    reinterpret_cast<const void*>(&failed),
    reinterpret_cast<const void*>(&failed),
};
}
