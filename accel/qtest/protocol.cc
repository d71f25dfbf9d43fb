// SPDX-License-Identifier: BSD-2-Clause
#include "accel/qtest/protocol.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <vector>

#include "accel/qtest/base64.h"
#include "util/wire.h"

namespace ferry::qtest {

namespace {

constexpr std::string_view kOk = "OK\n";
constexpr size_t kMaxWords = 8;

std::string fail(std::string_view why) {
    return fmt::format("FAIL {}\n", why);
}

// C's notation: decimal, 0x hexadecimal, leading 0 octal. All of the word or nothing.
std::optional<uint64_t> number(std::string_view word) {
    int base = 10;
    if (word.starts_with("0x") || word.starts_with("0X")) {
        word.remove_prefix(2);
        base = 16;
    } else if (word.size() > 1 && word.starts_with('0')) {
        word.remove_prefix(1);
        base = 8;
    }
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
    if (error != std::errc() || end != word.data() + word.size()) return std::nullopt;
    return value;
}

// All words as numbers, when there are `count` of them.
std::optional<std::vector<uint64_t>> numbers(std::span<const std::string_view> words,
                                             size_t count) {
    if (words.size() != count) return std::nullopt;
    std::vector<uint64_t> values;
    for (const std::string_view word : words) {
        const auto value = number(word);
        if (!value) return std::nullopt;
        values.push_back(*value);
    }
    return values;
}

unsigned width_of(char suffix) {
    switch (suffix) {
        case 'b': return 1;
        case 'w': return 2;
        case 'l': return 4;
        default: return 8;
    }
}

bool in_address_space(uint64_t address, uint64_t size) {
    return size == 0 || address + (size - 1) >= address;
}

std::optional<uint8_t> hex_digit(char c) {
    if (c >= '0' && c <= '9') return static_cast<uint8_t>(c - '0');
    if (c >= 'a' && c <= 'f') return static_cast<uint8_t>(c - 'a' + 10);
    if (c >= 'A' && c <= 'F') return static_cast<uint8_t>(c - 'A' + 10);
    return std::nullopt;
}

// "0x" and pairs of digits, at most `limit` bytes of them; nothing for anything else.
std::optional<std::vector<std::byte>> from_hex(std::string_view text, uint64_t limit) {
    if (!text.starts_with("0x")) return std::nullopt;
    text.remove_prefix(2);
    std::vector<std::byte> bytes;
    bytes.reserve(std::min<uint64_t>(text.size() / 2, limit));
    for (size_t i = 0; i + 1 < text.size() && bytes.size() < limit; i += 2) {
        const auto high = hex_digit(text[i]);
        const auto low = hex_digit(text[i + 1]);
        if (!high || !low) return std::nullopt;
        bytes.push_back(static_cast<std::byte>(*high << 4 | *low));
    }
    return bytes;
}

std::string to_hex(ConstBytes bytes) {
    constexpr std::string_view kDigits = "0123456789abcdef";
    std::string text;
    text.reserve(2 * bytes.size());
    for (const std::byte value : bytes) {
        text.push_back(kDigits[std::to_integer<unsigned>(value) >> 4]);
        text.push_back(kDigits[std::to_integer<unsigned>(value) & 0xf]);
    }
    return text;
}

}  // namespace

std::string Protocol::handle(std::string_view line) {
    if (line.ends_with('\r')) line.remove_suffix(1);
    std::array<std::string_view, kMaxWords> words;
    size_t count = 0;
    for (std::string_view rest = line; !rest.empty();) {
        const size_t end = std::min(rest.find(' '), rest.size());
        if (end > 0) {
            if (count == kMaxWords) return fail("Too many words");
            words[count++] = rest.substr(0, end);
        }
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    if (count == 0) return fail("Empty command");
    const std::string_view command = words[0];
    const Words arguments = Words(words).subspan(1, count - 1);

    static constexpr std::array<std::string_view, 6> kPorts = {"inb",  "inw",  "inl",
                                                               "outb", "outw", "outl"};
    static constexpr std::array<std::string_view, 8> kMemory = {
        "readb", "readw", "readl", "readq", "writeb", "writew", "writel", "writeq"};
    if (std::ranges::find(kPorts, command) != kPorts.end()) return port_io(command, arguments);
    if (std::ranges::find(kMemory, command) != kMemory.end()) {
        return memory_value(command, arguments);
    }
    if (command == "read") return read(arguments);
    if (command == "write") return write(arguments);
    if (command == "b64read") return base64_read(arguments);
    if (command == "b64write") return base64_write(arguments);
    if (command == "memset") return memset(arguments);
    if (parts_.clock != nullptr) {
        if (command == "clock_step") return clock_step(arguments);
        if (command == "clock_set") return clock_set(arguments);
    }
    if (command == "endianness") return arguments.empty() ? "OK little\n" : fail("No arguments");
    using Side = InterruptLines::Side;
    if (command == "irq_intercept_in") return intercept(Side::In, arguments);
    if (command == "irq_intercept_out") return intercept(Side::Out, arguments);
    if (command == "set_irq_in") return set_irq_in(arguments);
    return fail(fmt::format("Unknown command '{}'", command));
}

std::string Protocol::port_io(std::string_view command, Words arguments) {
    const bool is_write = command.starts_with("out");
    const auto values = numbers(arguments, is_write ? 2 : 1);
    if (!values) return fail("Expecting ADDR, and VALUE for out");
    if ((*values)[0] > UINT16_MAX) return fail("Port above 0xffff");
    const auto port = static_cast<uint16_t>((*values)[0]);
    const unsigned width = width_of(command.back());
    if (is_write) {
        parts_.machine.port_write(port, width, static_cast<uint32_t>((*values)[1]));
        return std::string(kOk);
    }
    return fmt::format("OK {:#06x}\n", parts_.machine.port_read(port, width));
}

std::string Protocol::memory_value(std::string_view command, Words arguments) {
    const bool is_write = command.starts_with("write");
    const auto values = numbers(arguments, is_write ? 2 : 1);
    if (!values) return fail("Expecting ADDR, and VALUE for write");
    const uint64_t address = (*values)[0];
    const unsigned width = width_of(command.back());
    if (!in_address_space(address, width)) return fail("Beyond the address space");
    std::array<std::byte, sizeof(uint64_t)> buffer{};
    const MutBytes bytes = MutBytes(buffer).first(width);
    if (is_write) {
        util::store_le64(buffer.data(), (*values)[1]);
        parts_.machine.memory_write(address, bytes);
        return std::string(kOk);
    }
    parts_.machine.memory_read(address, bytes);
    return fmt::format("OK {:#018x}\n", util::load_le64(buffer.data()));
}

std::string Protocol::read(Words arguments) {
    const auto values = numbers(arguments, 2);
    if (!values) return fail("Expecting ADDR SIZE");
    const auto [address, size] = std::pair((*values)[0], (*values)[1]);
    if (size == 0 || size > kMaxTransfer) {
        return fail(fmt::format("SIZE must be 1 to {}", kMaxTransfer));
    }
    if (!in_address_space(address, size)) return fail("Beyond the address space");
    std::vector<std::byte> bytes(size);
    parts_.machine.memory_read(address, bytes);
    return fmt::format("OK 0x{}\n", to_hex(bytes));
}

std::string Protocol::write(Words arguments) {
    if (arguments.size() != 3) return fail("Expecting ADDR SIZE 0xDATA");
    const auto values = numbers(arguments.first(2), 2);
    if (!values) return fail("Expecting ADDR SIZE 0xDATA");
    const auto [address, size] = std::pair((*values)[0], (*values)[1]);
    if (size == 0 || size > kMaxTransfer) {
        return fail(fmt::format("SIZE must be 1 to {}", kMaxTransfer));
    }
    if (!in_address_space(address, size)) return fail("Beyond the address space");
    auto bytes = from_hex(arguments[2], size);
    if (!bytes) return fail("DATA must be 0x and pairs of hexadecimal digits");
    if (bytes->empty()) return "ERR invalid argument size\n";
    bytes->resize(size);
    parts_.machine.memory_write(address, *bytes);
    return std::string(kOk);
}

std::string Protocol::base64_read(Words arguments) {
    const auto values = numbers(arguments, 2);
    if (!values) return fail("Expecting ADDR SIZE");
    const auto [address, size] = std::pair((*values)[0], (*values)[1]);
    if (size == 0 || size > kMaxTransfer) {
        return fail(fmt::format("SIZE must be 1 to {}", kMaxTransfer));
    }
    if (!in_address_space(address, size)) return fail("Beyond the address space");
    std::vector<std::byte> bytes(size);
    parts_.machine.memory_read(address, bytes);
    return fmt::format("OK {}\n", base64_encode(bytes));
}

std::string Protocol::base64_write(Words arguments) {
    if (arguments.size() != 3) return fail("Expecting ADDR SIZE DATA");
    const auto values = numbers(arguments.first(2), 2);
    if (!values) return fail("Expecting ADDR SIZE DATA");
    const auto [address, size] = std::pair((*values)[0], (*values)[1]);
    if (size == 0 || size > kMaxTransfer) {
        return fail(fmt::format("SIZE must be 1 to {}", kMaxTransfer));
    }
    if (!in_address_space(address, size)) return fail("Beyond the address space");
    auto bytes = base64_decode(arguments[2]);
    if (!bytes) return fail("DATA is not base64");
    if (bytes->size() > size) bytes->resize(size);
    parts_.machine.memory_write(address, *bytes);
    return std::string(kOk);
}

std::string Protocol::memset(Words arguments) {
    const auto values = numbers(arguments, 3);
    if (!values) return fail("Expecting ADDR SIZE BYTE");
    uint64_t address = (*values)[0];
    uint64_t size = (*values)[1];
    if (size > kMaxMemset) return fail(fmt::format("SIZE must be at most {}", kMaxMemset));
    if (!in_address_space(address, size)) return fail("Beyond the address space");
    constexpr uint64_t kChunk = 64 << 10;
    const std::vector<std::byte> chunk(std::min(size, kChunk),
                                       static_cast<std::byte>((*values)[2]));
    while (size > 0) {
        const uint64_t now = std::min<uint64_t>(size, chunk.size());
        parts_.machine.memory_write(address, ConstBytes(chunk).first(now));
        address += now;
        size -= now;
    }
    return std::string(kOk);
}

std::string Protocol::clock_step(Words arguments) {
    VirtualClock& clock = *parts_.clock;
    if (arguments.empty()) return clock_to(clock.next_deadline().value_or(clock.now()));
    const auto values = numbers(arguments, 1);
    if (!values || (*values)[0] > INT64_MAX) return fail("Expecting nanoseconds");
    int64_t later = 0;
    if (__builtin_add_overflow(clock.now(), static_cast<int64_t>((*values)[0]), &later)) {
        return fail(fmt::format("{}", clock.now()));
    }
    return clock_to(later);
}

std::string Protocol::clock_set(Words arguments) {
    const auto values = numbers(arguments, 1);
    if (!values || (*values)[0] > INT64_MAX) return fail("Expecting nanoseconds");
    return clock_to(static_cast<int64_t>((*values)[0]));
}

std::string Protocol::clock_to(int64_t time) {
    const auto reached = parts_.clock->run(time);
    if (!reached) return fail(fmt::format("{}", parts_.clock->now()));
    return fmt::format("OK {}\n", *reached);
}

std::string Protocol::intercept(InterruptLines::Side side, Words arguments) {
    if (parts_.lines == nullptr) return fail("No device with interrupt lines");
    const bool named = side == InterruptLines::Side::Out && arguments.size() == 2;
    if (arguments.size() != 1 && !named) return fail("Expecting a device's PATH");
    if (named) return fail(fmt::format("No interrupt outputs are called '{}'", arguments[1]));
    const auto device = parts_.lines->resolve(arguments[0], side);
    if (!device) return fail(device.error().message());
    if (intercept_) {
        if (intercept_->device == *device) return std::string(kOk);
        return fail("IRQ intercept already enabled");
    }
    intercept_.emplace(*device,
                       parts_.lines->watch(*device, side, [this](unsigned number, bool level) {
                           unasked_(fmt::format("IRQ {} {}\n", level ? "raise" : "lower", number));
                       }));
    return std::string(kOk);
}

std::string Protocol::set_irq_in(Words arguments) {
    constexpr std::string_view kInputs = "unnamed-gpio-in";
    if (parts_.lines == nullptr) return fail("No device with interrupt lines");
    if (arguments.size() != 4) return fail("Expecting PATH NAME NUM LEVEL");
    if (arguments[1] != kInputs) return fail(fmt::format("Only '{}' is there", kInputs));
    const auto values = numbers(arguments.subspan(2), 2);
    if (!values || (*values)[0] > UINT32_MAX) return fail("Expecting PATH NAME NUM LEVEL");
    const auto set = parts_.lines->set_input(arguments[0], static_cast<unsigned>((*values)[0]),
                                             (*values)[1] != 0);
    return set ? std::string(kOk) : fail(set.error().message());
}

}  // namespace ferry::qtest
