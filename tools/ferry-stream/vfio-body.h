// SPDX-License-Identifier: BSD-2-Clause
// The bodies of a VFIO device's section: records, the device's image among them.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>

#include "tools/ferry-stream/context.h"
#include "tools/ferry-stream/resync.h"

namespace ferry::stream_tool {

// "0000:00:03.0/vfio", or "vfio" where the device has no path.
bool is_vfio_section(std::string_view idstr);

class VfioBodies {
 public:
    struct Device {
        uint64_t image_bytes = 0;  // after the last DISCARD
        uint64_t records = 0;      // with image bytes
        uint64_t discards = 0;
        std::optional<uint64_t> config_bytes = std::nullopt;  // announced or met
    };
    using Key = std::pair<std::string, uint32_t>;  // idstr and instance

    explicit VfioBodies(Context& context) : context_(context) {}

    // One body up to its footer; `described` is its size by the description. An Error: it makes no
    // sense any more.
    Result<> read(const BodyOf& section, std::optional<uint64_t> described,
                  const IsStarted& started, Node& node);
    const std::map<Key, Device>& devices() const { return devices_; }

 private:
    enum class Next : uint8_t { Record, Footer };
    struct Body {
        const BodyOf& section;
        std::optional<uint64_t> described;
        const IsStarted& started;
        Node& node;
        Device& device;
        uint64_t begin = 0;
        uint64_t data_records = 0;
    };

    Result<Next> read_record(Body& body);
    Result<> read_data(Body& body, uint64_t at);
    Result<> read_config(Body& body, uint64_t at);
    Result<> read_config_size(Body& body, uint64_t at);
    Result<> read_discard(Body& body, uint64_t at);
    Result<uint64_t> config_length(Body& body, uint64_t at, Node& config);
    Result<uint64_t> guess_config_length(Body& body, uint64_t at);
    Result<> describe_config(Node& config, uint64_t length);
    Result<Next> end_follows(uint64_t at, std::string_view after);
    void expect_kind(const Body& body, uint64_t at, std::string_view record,
                     std::initializer_list<SectionKind> kinds);

    Context& context_;
    std::map<Key, Device> devices_;
};

}  // namespace ferry::stream_tool
